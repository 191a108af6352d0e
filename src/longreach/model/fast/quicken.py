"""From a model to its quick form, checked; or to the model itself where no quick form is found.

Imported only where a model runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from longreach.errors import InputError, UnsupportedError
from longreach.model.fast.attending import attending
from longreach.model.fast.fuse import fuse
from longreach.model.fast.graph import SIZES, Builder, Mismatch, copied
from longreach.model.fast.norms import Norm, find_norms
from longreach.model.fast.quantise import Format, quantised
from longreach.model.fast.record import Recording, Untraceable, attention, record
from longreach.model.fast.rewrite import (
    divide_quickly,
    drop_unused,
    merge_products,
    rotate_quickly,
    rotate_together,
    tidy,
)
from longreach.model.fast.write import write

Attention: TypeAlias = Callable[..., tuple[Tensor, Any]]
"""`(module, query [1, heads, T, dim], key [1, kv_heads, T, dim], value, mask, **options) -> ([1, T, heads, dim], any)`;
`module` is the model's attention layer, `options` are what the model's code gives: `scaling`, `sliding_window`, …"""

FEW: tuple[Format, ...] = ("own", "auto", "int8", "int4")
MANY: tuple[Format, ...] = ("own", "dynamic")
LIMIT = 16
"""Tokens up to which products by groups are quicker than float32 ones (docs/cpu.md)."""

_OPAQUE = 64  # modules that are let alone before a model is given up


@dataclass(frozen=True)
class Fast:
    """`fast(ids, positions, rows, attention)`: logits `[1, rows, vocab]` of a model.

    `ids` and `positions` are `[1, T]`, any sequences' tokens one after another, each at its own position; `rows` `[R]`
    says of which of them logits are wanted. `few` runs where T is at most `limit`, `many` elsewhere; where there are no
    rows `fill` does in its place, which computes nothing after the last layer's keys and values. `quick` is false where
    this is the model's own forward, for the reason in `why`; `bytes` is what quantised weights take beside the model's
    own. `graph` is what all of it was written from, in the model's own numbers.
    """

    few: Callable[[Tensor, Tensor, Tensor, Attention], Tensor]
    many: Callable[[Tensor, Tensor, Tensor, Attention], Tensor]
    limit: int
    quick: bool
    why: str
    bytes: int
    fill: Callable[[Tensor, Tensor, Tensor, Attention], Tensor] | None = None
    graph: fx.Graph | None = None

    def __call__(self, ids: Tensor, positions: Tensor, rows: Tensor, attention: Attention) -> Tensor:
        with torch.inference_mode():
            if len(rows) == 0 and ids.shape[1] <= self.limit:  # the end of it costs less than other products
                return self.few(ids, positions, rows.new_zeros(1), attention)[:, :0]
            if self.fill is not None and len(rows) == 0:
                return self.fill(ids, positions, rows, attention).new_empty(1, 0, 0)
            return (self.few if ids.shape[1] <= self.limit else self.many)(ids, positions, rows, attention)


def quicken(model: Any, *, few: Format = "own", many: Format = "own", limit: int = LIMIT) -> Fast:
    """The quick form of a transformers causal language model in evaluation mode.

    `few` says how weights are multiplied with at most `limit` tokens, `many` with more: `own` keeps the model's
    numbers, the others are those of `quantise` and for a processor only. The model's own weights stay. Those that
    multiply the same vectors become parts of one tensor, in the model too: nobody else may use it meanwhile. Where no
    quick form can be found, or it gives other numbers than the model, the result is the model's own forward, and
    `quick` is false.

    Raises InputError for an unknown format, UnsupportedError for one that cannot be had here.
    """
    for given, known in ((few, FEW), (many, MANY)):
        if given not in known:
            raise InputError(f"the format {given!r} is not known here; known: {', '.join(known)}")
    if (few, many) != ("own", "own") and model.device.type != "cpu":
        raise UnsupportedError(f"quantised products run on a processor only: use the model's own on {model.device}")
    slow = own_forward(model)
    try:
        graph = straighten(model)
        exact = write(graph)
        wrong = difference(model, slow, exact)
    except (Untraceable, Mismatch) as error:
        wrong = str(error)
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, SyntaxError) as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        return Fast(slow, slow, 0, False, wrong, 0)
    forms, taken = [], 0
    for form in (few, many):
        if form == "own":
            forms.append(exact)
            continue
        try:
            rounded, size = quantised(graph, form)
            if form is few:
                from longreach.model.fast.numba_rows import fuse_rows

                fuse_rows(rounded)
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UnsupportedError(f"this PyTorch has no products in the format {form} here: {reason}") from None
        forms.append(write(rounded))
        taken += size
    return Fast(forms[0], forms[1], limit, True, "", taken, write(without_logits(graph)), graph)


def straighten(model: Any) -> fx.Graph:
    """The simplified graph of `model`. Raises Untraceable or Mismatch where there is none."""
    norms = find_norms(model)
    opaque: set[nn.Module] = set()
    while True:
        try:
            graph = Builder().build(*(_recorded(model, *sizes, opaque, norms) for sizes in SIZES))
            break
        except Untraceable as error:
            inside = error.module
            if inside is None or inside is model or inside in opaque or len(opaque) >= _OPAQUE:
                raise
            if any("layer_idx" in vars(part) for part in inside.modules()):  # it attends, which must be seen
                raise
            opaque.update(part for part in model.modules() if type(part) is type(inside))
    attending = sum(node.target is attention for node in graph.nodes)
    if attending != model.config.get_text_config(decoder=True).num_hidden_layers:
        raise Mismatch("some layers keep something else than keys and values of all tokens")
    for step in (tidy, *_between(model.device), merge_products, tidy, *_after(model.device)):
        step(graph)
    return graph


def without_logits(graph: fx.Graph) -> fx.Graph:
    """What `graph` does up to where the last layer attends: all keys and values, and nothing of the output."""
    last = [node for node in graph.nodes if node.target is attention][-1]
    copy = copied(graph, last)
    drop_unused(copy)
    return copy


def _between(device: torch.device) -> tuple[Callable[[fx.Graph], None], ...]:
    """What makes fewer operations of those between two products."""
    return (fuse,) if device.type == "cuda" else (rotate_quickly, divide_quickly)


def _after(device: torch.device) -> tuple[Callable[[fx.Graph], None], ...]:
    """What needs queries and keys to be one product."""
    return () if device.type == "cuda" else (rotate_together,)


def _recorded(model: Any, tokens: int, rows: int, opaque: set[nn.Module], norms: dict[nn.Module, Norm]) -> Recording:
    ids, positions, wanted = _sample(model, tokens, rows)
    return record(model, ids, positions, wanted, opaque, norms)


def _sample(model: Any, tokens: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(tokens)
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.randint(0, vocabulary, (1, tokens), generator=made)
    positions = torch.arange(tokens)[None]
    return ids.to(model.device), positions.to(model.device), torch.arange(tokens - rows, tokens, device=model.device)


def own_forward(model: Any) -> Callable[[Tensor, Tensor, Tensor, Attention], Tensor]:
    """The model's own forward in the shape of the quick one; one thread at a time."""
    lock = threading.Lock()

    def run(ids: Tensor, positions: Tensor, rows: Tensor, attention: Attention) -> Tensor:
        with lock, attending(model, attention), torch.inference_mode():
            done = model(input_ids=ids, position_ids=positions, logits_to_keep=rows, use_cache=False)
        logits: Tensor = done.logits
        return logits

    return run


def difference(model: Any, slow: Callable[..., Tensor], quick: Callable[..., Tensor], least: float = 0.0) -> str:
    """What tells the quick form from the model, on numbers of tokens it was not recorded with; empty if nothing. The
    largest logit times `least`, or what the model's dtype asks for, they may be apart."""
    for tokens, rows in ((1, 1), (13, 3)):
        given = _sample(model, tokens, rows)
        with torch.inference_mode():
            wanted, found = slow(*given, plain_attention), quick(*given, plain_attention)
            if wanted.shape != found.shape or wanted.dtype != found.dtype:
                return f"it gives {tuple(found.shape)} where the model gives {tuple(wanted.shape)}"
            bound = {torch.float32: 1e-5, torch.float64: 1e-9}.get(wanted.dtype)
            if bound is None:  # the order of sums alone changes much: as much as when more text follows
                more = zip(given[:2], _sample(model, 48, 1)[:2], strict=True)
                longer = [torch.cat((one, other[:, tokens:]), 1) for one, other in more]
                bound = max(0.05, 2 * _apart(wanted, slow(*longer, given[2], plain_attention)))
        apart = _apart(wanted, found)
        if not apart <= max(bound, least):
            return f"its logits are {apart:.1e} of the largest apart from the model's, at {tokens} tokens"
    return ""


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, in parts of the largest of `one`."""
    return float((one - other).abs().amax()) / max(float(one.abs().amax()), 1e-6)


def plain_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention among the tokens of one call, for checking; windows and caps are left out."""
    heads = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(heads, dim=1), value.repeat_interleave(heads, dim=1)
    scaling = options.get("scaling")
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    return out.transpose(1, 2).contiguous(), None
