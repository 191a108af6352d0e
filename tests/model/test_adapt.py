"""The quick form with an adapter gives what the model gives with the adapter laid on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from families import CONFIGS, fresh
from longreach.attention.attend import Scores
from longreach.model.adapter import Adapter
from longreach.model.bridge import Bridge
from longreach.model.fast import adapt, quicken
from longreach.model.fast.fuse import fuse
from longreach.model.plain import plain_part, plain_weights

TOKENS = torch.arange(23) * 5 % 97
PLACES = torch.arange(3, 26)
NOTHING = torch.empty(0, dtype=torch.long)
LAST = torch.tensor([22])
OPAQUE = {"gpt2"}  # its products are no linear modules


@dataclass
class Seen:
    """Attends plainly, and keeps the keys and values of every layer."""

    found: list[torch.Tensor] = field(default_factory=list)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.found += [key.clone(), value.clone()]
        return plain_part(*plain_weights(query, key, scores), value)


def changing(model: nn.Module, names: list[str] | None = None) -> Adapter:
    """An adapter that changes every product of the layers, or those of `names`."""
    products = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and "layers" in name]
    adapter = Adapter.fresh(model, names or products, 3, 2.0, "passages", 0)
    generator = torch.Generator().manual_seed(1)
    for part in adapter.up.values():
        part.data.copy_(torch.randn(part.shape, generator=generator) * 0.1)
    return adapter.on(model)


@torch.inference_mode()
def computed(bridge: Bridge, adapter: Adapter | None, keep: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Keys and values of every layer, and the logits."""
    seen = Seen()
    if adapter is None:
        return seen.found, bridge.run(TOKENS, PLACES, seen, keep)
    with bridge.adapted(adapter):
        logits = bridge.run(TOKENS, PLACES, seen, keep)
    return seen.found, logits


def apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest difference, in parts of the largest number."""
    assert len(one) == len(other) > 0
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("family", sorted(CONFIGS.keys() - OPAQUE))
def test_the_quick_form_with_an_adapter_gives_the_numbers_of_the_model_with_it(family: str) -> None:
    bridge = Bridge(fresh(family).requires_grad_(False))
    adapter = changing(bridge.model)
    wanted, logits = computed(bridge, adapter, LAST)
    plain = computed(bridge, None, LAST)[1]
    bridge.quicken("own")
    assert bridge.fast is not None
    own = bridge.fast
    quick = adapt.with_adapter(bridge.model, own, adapter)
    found, again = computed(bridge, adapter, LAST)
    assert apart([*wanted, logits], [*found, again]) < 1e-4
    assert apart([logits], [plain]) > 1e-2
    assert bridge.fast is own
    assert apart([plain], [computed(bridge, None, LAST)[1]]) < 1e-5
    assert quick is not None or family in ("mixtral", "qwen3_moe")


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3"])
def test_without_wanted_logits_keys_and_values_are_the_same_and_nothing_else_is_computed(family: str) -> None:
    bridge = Bridge(fresh(family).requires_grad_(False))
    adapter = changing(bridge.model)
    slow, nothing = computed(bridge, adapter, NOTHING)
    assert nothing.numel() == 0
    bridge.quicken("own")
    for given in (LAST, NOTHING):
        assert apart(slow, computed(bridge, adapter, given)[0]) < 1e-4
    assert computed(bridge, adapter, NOTHING)[1].numel() == 0
    assert bridge.fast is not None
    assert bridge.fast.graph is not None
    left = [str(node.target) for node in adapt.without_logits(bridge.fast.graph).nodes]
    whole = [str(node.target) for node in bridge.fast.graph.nodes]
    assert sum("linear" in name for name in left) < sum("linear" in name for name in whole)


def test_parts_of_merged_weights_are_found_by_their_place() -> None:
    bridge = Bridge(fresh("llama").requires_grad_(False))
    names = ["model.layers.0.self_attn.v_proj", "model.layers.1.mlp.up_proj", "model.layers.2.mlp.down_proj"]
    adapter = changing(bridge.model, names)
    wanted, _ = computed(bridge, adapter, LAST)
    bridge.quicken("own")
    assert bridge.fast is not None
    quick = adapt.with_adapter(bridge.model, bridge.fast, adapter)
    assert quick is not None
    assert quick.bytes == 4 * sum(32 * rows for rows in (32 + 2 * 16, 2 * 48, 48))
    assert apart(wanted, computed(bridge, adapter, LAST)[0]) < 1e-4


def test_fused_for_cuda_it_gives_the_same_numbers(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels("rows")
    monkeypatch.setattr(quicken, "_between", lambda device: (fuse,))
    bridge = Bridge(fresh("llama").requires_grad_(False))
    adapter = changing(bridge.model)
    wanted, _ = computed(bridge, adapter, LAST)
    bridge.quicken("own")
    assert bridge.fast is not None
    assert adapt.with_adapter(bridge.model, bridge.fast, adapter) is not None
    for keep in (LAST, NOTHING):
        assert apart(wanted, computed(bridge, adapter, keep)[0]) < 1e-4


def test_it_is_made_once_for_each_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = adapt.with_adapter

    def with_adapter(*given: Any) -> Any:
        made.append(given)
        return real(*given)

    monkeypatch.setattr("longreach.model.bridge.with_adapter", with_adapter)
    bridge = Bridge(fresh("llama").requires_grad_(False))
    one, other = changing(bridge.model), changing(bridge.model, ["model.layers.0.mlp.up_proj"])
    computed(bridge, one, NOTHING)
    assert not made
    bridge.quicken("own")
    for adapter in (one, other, one, other):
        computed(bridge, adapter, NOTHING)
    assert [given[2] is adapter for given, adapter in zip(made, (one, other), strict=True)] == [True, True]


def test_in_bfloat16_it_is_as_near_to_float32_as_the_model_with_hooks() -> None:
    exact = Bridge(fresh("llama").requires_grad_(False))
    wanted, _ = computed(exact, changing(exact.model), LAST)
    bridge = Bridge(fresh("llama").requires_grad_(False).to(torch.bfloat16))
    adapter = changing(bridge.model)
    hooked, _ = computed(bridge, adapter, LAST)
    bridge.quicken("own")
    assert bridge.fast is not None
    quick = adapt.with_adapter(bridge.model, bridge.fast, adapter)
    assert quick is not None
    assert quick.bytes == 2 * sum(bridge.model.get_submodule(name).weight.numel() for name in adapter.down)
    found, _ = computed(bridge, adapter, LAST)
    assert apart(wanted, found) < 1.5 * apart(wanted, hooked) + 0.01


def test_without_memory_for_it_the_model_computes_with_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt, "_free", lambda device: 1000)
    bridge = Bridge(fresh("llama").requires_grad_(False))
    adapter = changing(bridge.model)
    wanted = computed(bridge, adapter, LAST)
    bridge.quicken("own")
    assert bridge.fast is not None
    assert adapt.with_adapter(bridge.model, bridge.fast, adapter) is None
    assert torch.equal(wanted[1], computed(bridge, adapter, LAST)[1])
