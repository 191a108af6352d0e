"""The bridge: transformers' own model code, with our attention.

Any decoder of transformers calls a registered function for its attention, and hands on to it what its forward was given
by name. So the step of the engine travels as an argument, and nothing is kept aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import with_sink
from longreach.attention.rotation import Rotation
from longreach.attention.step import Attends
from longreach.errors import UnsupportedError
from longreach.model.adapter import Adapter
from longreach.model.fast.adapt import with_adapter
from longreach.model.fast.quicken import Fast, quicken
from longreach.model.narrow import narrowing
from longreach.model.plain import plain_part, plain_weights
from longreach.model.positions import find_rotations

NAME = "longreach"
Products: TypeAlias = Literal["own", "auto"]


@dataclass
class Shapes:
    """What a model asks of the cache: layers, KV heads, channels of keys and of values; `windows` per layer; and the
    query heads that share a KV head at most (`group`)."""

    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int
    windows: list[int | None]
    group: int


class Bridge:
    """A decoder of transformers that attends through steps.

    `shapes` and `rotations`, one a layer, were found by running it; `relocatable` says whether its keys can be moved
    exactly.
    Raises UnsupportedError for a model whose attention does not go through transformers' interface, or whose layers
    have caches of different shapes.
    """

    def __init__(self, model: Any) -> None:
        _register()
        try:
            model.set_attn_implementation(NAME)
        except Exception as error:
            raise UnsupportedError(f"{type(model).__name__} does not let its attention be replaced: {error}") from None
        self.model = model
        self.fast: Fast | None = None
        self._adapted: list[tuple[Adapter, Fast | None]] = []
        self.device = next(model.parameters()).device
        self.shapes = _shapes(self._look(0))
        found = find_rotations(model, lambda first: [layer.key for layer in self._look(first)])
        self.relocatable = found is not None
        self.rotations = found or [Rotation.none()] * self.shapes.layers

    def quicken(self, products: Products) -> None:
        """Take the model's quick form from now on (`longreach.model.fast`): seconds once, fewer for every token. "own"
        multiplies with the model's own numbers, "auto" in 8 bits, or 4 where the model was stored in them, for a few
        tokens at a time; where PyTorch has no such products, "auto" is "own"."""
        try:
            quick = quicken(self.model, few=products)
        except UnsupportedError:
            quick = quicken(self.model, few="own")
        self.fast = quick if quick.quick else None

    @contextmanager
    def adapted(self, adapter: Adapter) -> Iterator[None]:
        """While this is open, the model computes with `adapter`: in a quick form of both together, made when it is
        first wanted, or where there is none in the model's own, which knows hooks."""
        before, quick = self.fast, self._together(adapter)
        self.fast = quick
        try:
            with adapter.applied(self.model) if quick is None else nullcontext():
                yield
        finally:
            self.fast = before

    def _together(self, adapter: Adapter) -> Fast | None:
        """The quick form of the model with `adapter`, if the model has its own by now."""
        if self.fast is None:
            return None
        if not any(known is adapter for known, _ in self._adapted):
            self._adapted.append((adapter, with_adapter(self.model, self.fast, adapter)))
        return next(quick for known, quick in self._adapted if known is adapter)

    def run(self, tokens: torch.Tensor, positions: torch.Tensor, step: Attends, keep: torch.Tensor) -> torch.Tensor:
        """Logits `[len(keep), vocab]`, in the model's dtype, after those of `tokens [tokens]` at `positions` that
        `keep` points to. It may be empty: then the keys and values are computed, and little else."""
        if self.fast is not None:
            return self.fast(tokens[None], positions[None], keep, partial(_attention, step=step))[0]
        return self._forward(tokens, positions, step, keep)

    def run_narrowing(
        self, tokens: torch.Tensor, positions: torch.Tensor, step: Attends, rows: Callable[[], torch.Tensor]
    ) -> None:
        """As `run` without logits, with fewer tokens from layer to layer: `rows()` go on, numbers that rise. By the
        model's own forward also where it has a quick form, in which all tokens go to the end. Raises UnsupportedError
        for a model whose layers are not to be found."""
        with narrowing(self.model, len(tokens), rows):
            self._forward(tokens, positions, step, tokens.new_zeros(0))

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, step: Attends, keep: torch.Tensor
    ) -> torch.Tensor:
        done = self.model(
            input_ids=tokens[None], position_ids=positions[None], use_cache=False, logits_to_keep=keep, step=step
        )
        logits: torch.Tensor = done.logits[0]
        return logits

    @torch.inference_mode()
    def _look(self, first: int) -> list[_Seen]:
        """A few tokens at positions from `first` on, and what each layer made of them."""
        watch = _Watch()
        vocabulary = self.model.get_input_embeddings().num_embeddings
        tokens = torch.arange(_Watch.TOKENS, device=self.device) * 7 % vocabulary
        positions = torch.arange(first, first + _Watch.TOKENS, device=self.device)
        self.run(tokens, positions, watch, torch.tensor([0], device=self.device))
        if not watch.layers:
            raise UnsupportedError(f"{type(self.model).__name__} does not use transformers' attention interface")
        return [watch.layers[layer] for layer in sorted(watch.layers)]


@dataclass
class _Seen:
    key: torch.Tensor
    value: torch.Tensor
    scores: Scores
    group: int


@dataclass
class _Watch:
    """Looks at what comes by and attends plainly."""

    TOKENS = 8
    layers: dict[int, _Seen] = field(default_factory=dict)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.layers[layer] = _Seen(key, value, scores, query.shape[1] // key.shape[1])
        return plain_part(*plain_weights(query, key, scores), value)


def _shapes(layers: list[_Seen]) -> Shapes:
    found = {(*layer.key.shape[1:], layer.value.shape[2]) for layer in layers}
    if len(found) != 1:
        raise UnsupportedError(f"the layers of the model have keys and values of different shapes: {sorted(found)}")
    heads, dim, value_dim = found.pop()
    group = max(layer.group for layer in layers)
    return Shapes(len(layers), heads, dim, value_dim, [layer.scores.window for layer in layers], group)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    step: Attends,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: `[1, heads, tokens, dim]` in, `[1, tokens, heads, dim]` out."""
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    own, keys, values = _tokens_first(query), _tokens_first(key), _tokens_first(value)
    part = step.attend(module.layer_idx, own, keys, values, Scores(scale, sliding_window, softcap))
    output = part[0] if s_aux is None else with_sink(part, s_aux)[0]
    return output[None], None


def _tokens_first(x: torch.Tensor) -> torch.Tensor:
    """`[tokens, heads, dim]` of `[1, heads, tokens, dim]`; of one token in one operation."""
    return x.reshape(1, x.shape[1], x.shape[3]) if x.shape[2] == 1 else x[0].transpose(0, 1)


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
