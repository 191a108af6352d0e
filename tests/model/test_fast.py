from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from longreach.errors import InputError
from longreach.model.fast import quicken as quicken_module
from longreach.model.fast.attending import attending
from longreach.model.fast.fuse import fuse
from longreach.model.fast.norms import find_norms
from longreach.model.fast.numba_rows import fuse_rows
from longreach.model.fast.products import by_rows, dynamically, four_bits, in_4_bits, in_8_bits, loss
from longreach.model.fast.quicken import Fast, quicken
from longreach.model.fast.write import write

SMALL: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NEOX = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "qwen2": SMALL,
    "qwen3": {**SMALL, "head_dim": 16},
    "mistral": {**SMALL, "head_dim": 16, "sliding_window": 8},
    "gemma2": {**SMALL, "head_dim": 16, "sliding_window": 8},
    "gemma3_text": {**SMALL, "head_dim": 16, "sliding_window": 8},
    "phi3": SMALL,
    "olmo2": SMALL,
    "smollm3": SMALL,
    "gpt_neox": NEOX,
    "gpt2": {"vocab_size": 128, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256, "bos_token_id": 1},
    "mixtral": {**SMALL, "num_local_experts": 4},
}


def network(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A random network of a family, norms and biases random too so that forgetting one shows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **{**FAMILIES[family], **changes}), dtype=dtype
    )
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.data.add_(0.2 * torch.randn_like(weight))
        elif "embed" not in name:
            weight.data.mul_(4)
    return model.eval().requires_grad_(False)


class Kept:
    """Attention over all that came in earlier calls, within the layer's window."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        at: Any = module.layer_idx
        if at in self.layers:
            key, value = (torch.cat((old, new), 2) for old, new in zip(self.layers[at], (key, value), strict=True))
        self.layers[at] = (key, value)
        group = query.shape[1] // key.shape[1]
        places = torch.arange(key.shape[2])
        apart = places[-query.shape[2] :, None] - places
        seen = (apart >= 0) & (apart < (options.get("sliding_window") or 10**6))
        keys, values = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        scores = query @ keys.transpose(2, 3) * options["scaling"]
        if cap := options.get("softcap"):
            scores = cap * torch.tanh(scores / cap)
        return (scores.masked_fill(~seen, -1e9).softmax(-1) @ values).transpose(1, 2), None


def steps(run: Callable[..., Tensor], pieces: list[list[int]]) -> list[Tensor]:
    """Logits of all rows while a sequence is computed piece by piece."""
    attention, start, found = Kept(), 0, []
    for piece in pieces:
        positions = torch.arange(start, start + len(piece))[None]
        found.append(run(torch.tensor([piece]), positions, torch.arange(len(piece)), attention))
        start += len(piece)
    return found


def own(model: Any) -> Callable[..., Tensor]:
    def run(ids: Tensor, positions: Tensor, rows: Tensor, attention: Any) -> Tensor:
        with attending(model, attention), torch.inference_mode():
            return model(input_ids=ids, position_ids=positions, logits_to_keep=rows, use_cache=False).logits

    return run


def apart(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference, in parts of the largest number."""
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True))


PIECES = [list(range(3, 23)), [7], [9], [50, 51, 52], [1], list(range(60, 90))]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_quick_form_gives_the_numbers_of_the_model(family: str) -> None:
    wanted = steps(own(network(family)), PIECES)
    fast = quicken(network(family))
    assert fast.quick, fast.why
    assert apart(wanted, steps(fast, PIECES)) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_in_bfloat16_it_is_as_near_to_float32_as_the_model_is(family: str) -> None:
    exact = steps(own(network(family)), PIECES)
    model = network(family, torch.bfloat16)
    theirs = steps(own(model), PIECES)
    fast = quicken(model)
    assert fast.quick, fast.why
    ours = [logits.float() for logits in steps(fast, PIECES)]
    assert apart(exact, ours) < 1.5 * apart(exact, [logits.float() for logits in theirs]) + 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_for_cuda_it_gives_the_same_numbers(family: str, kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels("rows")
    monkeypatch.setattr(quicken_module, "_between", lambda device: (fuse,))
    wanted = steps(own(network(family)), PIECES)
    fast = quicken(network(family))
    assert fast.quick, fast.why
    assert apart(wanted, steps(fast, PIECES)) < 1e-5


def test_fusing_leaves_products_and_a_few_kernels_of_a_layer(monkeypatch: pytest.MonkeyPatch, kernels: Any) -> None:
    kernels("rows")
    monkeypatch.setattr(quicken_module, "_between", lambda device: (fuse,))
    names = [str(node.target) for node in quicken_module.straighten(network("llama")).nodes]
    counts = {kind: sum(kind in name for name in names) for kind in ("linear", "add_norm", "gated", "rotated")}
    assert counts == {"linear": 4 * 3 + 1, "add_norm": 2 * 3, "gated": 3, "rotated": 3}
    assert not any("silu" in name or "addcmul" in name for name in names)


def test_fewer_operations_are_left() -> None:
    from longreach.model.fast.quicken import straighten

    names = [str(node.target) for node in straighten(network("llama")).nodes if node.op == "call_function"]
    assert sum("linear" in name for name in names) == 4 * 3 + 1
    assert sum("divided" in name for name in names) == 2 * 3 + 1
    assert not any("cat" in name or "pow" in name for name in names[20:])


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_rows_of_a_few_tokens_give_the_same_numbers(family: str) -> None:
    model = network(family)
    wanted = steps(own(model), PIECES)
    graph = quicken_module.straighten(model)
    fuse_rows(graph)
    run = write(graph)
    fused = quicken_module.Fast(run, run, 0, True, "", 0)
    assert apart(wanted, steps(fused, PIECES)) < 1e-5


def test_compiled_rows_take_the_place_of_what_stands_between_products() -> None:
    graph = quicken_module.straighten(network("llama"))
    fuse_rows(graph)
    names = [str(node.target) for node in graph.nodes]
    counts = {kind: sum(f" {kind} " in name for name in names) for kind in ("add_divided", "gated", "turned")}
    assert counts == {"add_divided": 2 * 3, "gated": 3, "turned": 3}
    assert not any("silu" in name or "turned_together" in name for name in names)


def test_the_model_is_left_as_it_was() -> None:
    model = network("llama")
    before = steps(own(model), PIECES)
    names = [name for name, _ in model.named_parameters()]
    implementation = model.config._attn_implementation
    quicken(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert model.config._attn_implementation == implementation
    assert apart(before, steps(own(model), PIECES)) < 1e-6
    after = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in model.parameters()}
    assert sum(after.values()) == sum(weight.nbytes for weight in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())


def test_gradients_can_be_taken_of_a_model_that_was_made_quick_while_it_ran() -> None:
    model = network("llama")
    with torch.inference_mode():
        assert quicken(model).quick
    model.requires_grad_()
    model(input_ids=torch.tensor([[3, 7, 4]])).logits.sum().backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_model_is_made_quick_twice_in_the_same_products_and_the_same_memory(family: str) -> None:
    model = network(family)
    forms = [quicken(model) for _ in range(2)]
    assert forms[0].graph is not None
    assert forms[1].graph is not None
    products = [sum(node.target is nn.functional.linear for node in form.graph.nodes) for form in forms if form.graph]
    assert products[0] == products[1]
    assert apart(steps(forms[0], PIECES), steps(forms[1], PIECES)) == 0
    after = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in model.parameters()}
    assert sum(after.values()) == sum(weight.nbytes for weight in model.parameters())


def test_a_layer_that_decides_by_numbers_is_run_as_it_is() -> None:
    changes = {
        "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
        "max_position_embeddings": 16,
    }
    long = [list(range(10)), [5], list(range(20)), [8]]
    wanted = steps(own(network("llama", **changes)), long)
    fast = quicken(network("llama", **changes))
    assert fast.quick, fast.why
    assert apart(wanted, steps(fast, long)) < 1e-5


def test_properties_that_are_tensors_are_followed() -> None:
    def turned(model: Any) -> Any:
        for layer in model.model.layers:
            layer.mlp.forward = lambda x, mlp=layer.mlp: mlp.down_proj(mlp.up_proj(x)[0].T.mT[None])
        return model

    wanted = steps(own(turned(network("llama"))), PIECES)
    fast = quicken(turned(network("llama")))
    assert fast.quick, fast.why
    assert apart(wanted, steps(fast, PIECES)) < 1e-5


def test_what_cannot_be_written_down_is_left_to_the_model() -> None:
    model = network("llama")
    forward = model.model.forward

    def moody(*args: Any, **kwargs: Any) -> Any:
        done = forward(*args, **kwargs)
        if done.last_hidden_state.sum() > 1e9:
            raise RuntimeError
        return done

    model.model.forward = moody
    fast = quicken(model)
    assert not fast.quick
    assert fast.why
    assert apart(steps(own(model), PIECES), steps(fast, PIECES)) == 0


def test_a_quick_form_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from longreach.model.fast import quicken as module

    def spoil(graph: Any) -> None:
        next(node for node in graph.nodes if "silu" in str(node.target)).target = torch.nn.functional.relu

    monkeypatch.setattr(module, "rotate_quickly", spoil)
    fast = quicken(network("llama"))
    assert not fast.quick
    assert "apart" in fast.why


def test_layers_with_another_memory_are_left_to_the_model() -> None:
    from transformers import AutoModelForCausalLM, Lfm2Config

    config = Lfm2Config(**SMALL, layer_types=["conv", "full_attention", "conv"])
    assert not quicken(AutoModelForCausalLM.from_config(config).eval()).quick


def test_norms_are_known_by_their_numbers() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(64))
            self.eps = 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x / (x.norm(dim=-1, keepdim=True) + self.eps)

    model = network("gemma2")
    model.extra = Strange()
    found = find_norms(model)
    assert len(found) == 4 * 3 + 1
    assert model.extra not in found


def on_a_grid(outputs: int, inputs: int) -> Tensor:
    """Weights as a file of 4 bits holds them."""
    made = torch.Generator().manual_seed(1)
    numbers = torch.randint(0, 16, (outputs, inputs // 32, 32), generator=made)
    numbers[..., 0], numbers[..., 1] = 0, 15
    scales = torch.rand(outputs, inputs // 32, 1, generator=made) + 0.5
    return ((numbers - 7) * scales.bfloat16()).flatten(1)


def test_weights_that_were_stored_in_4_bits_lose_next_to_nothing() -> None:
    assert loss(four_bits(on_a_grid(32, 64)), on_a_grid(32, 64)) < 0.005
    other = torch.randn(32, 64)
    assert loss(four_bits(other), other) > 0.05


@given(tokens=st.integers(1, 40), biased=st.booleans(), wide=st.sampled_from([16, 48]))
@settings(max_examples=25, deadline=None)
def test_rounded_products_are_near_the_exact_one(tokens: int, biased: bool, wide: int) -> None:
    made = torch.Generator().manual_seed(tokens)
    weight, x = torch.randn(wide, 64, generator=made), torch.randn(1, tokens, 64, generator=made)
    x *= torch.logspace(-2, 2, tokens)[None, :, None]  # a token must not suffer from another's size
    bias = torch.randn(wide, generator=made) if biased else None
    exact = nn.functional.linear(x, weight, bias)
    size = (x.norm(dim=-1) * weight.norm() / wide**0.5 + (0 if bias is None else bias.norm()))[..., None]
    for make, bound in ((in_4_bits, 0.1), (in_8_bits, 0.02), (by_rows, 0.02), (dynamically, 0.03)):
        run, taken = make(weight, bias)
        y = run(x)
        assert y.shape == exact.shape
        assert float(((y - exact) / size).abs().max()) < bound
        assert taken < weight.nbytes / 2


@pytest.mark.parametrize(("few", "many"), [("auto", "own"), ("int8", "own"), ("int4", "own"), ("int8", "dynamic")])
def test_rounded_weights_give_nearly_the_numbers_of_the_model(few: Any, many: Any) -> None:
    wide = {"hidden_size": 128, "intermediate_size": 256}
    wanted = steps(own(network("llama", **wide)), PIECES)
    fast = quicken(network("llama", **wide), few=few, many=many)
    assert fast.quick
    found = steps(fast, PIECES)
    alike = torch.cosine_similarity(torch.cat(wanted, 1).flatten(), torch.cat(found, 1).flatten(), dim=0)
    assert apart(wanted, found) > 0
    assert alike > (0.98 if few == "int4" else 0.999)
    assert fast.bytes > 0


def test_an_unknown_format_is_an_error() -> None:
    wrong: Any = "int3"
    with pytest.raises(InputError, match="int3"):
        quicken(network("llama"), few=wrong)


def test_the_limit_tells_few_from_many() -> None:
    said: list[str] = []

    def note(name: str) -> Callable[..., Tensor]:
        return lambda ids, *_: said.append(name) or ids

    fast = Fast(note("few"), note("many"), 4, True, "", 0)
    for tokens in (1, 4, 5):
        fast(torch.zeros(1, tokens), torch.zeros(1, tokens), torch.zeros(1), lambda: None)  # type: ignore[arg-type]
    assert said == ["few", "few", "many"]
