"""Tokens that are computed again where they stand, of which fewer and fewer go on from layer to layer."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import NamedTuple, TypeAlias

import torch

from longreach.attention.attend import Scores
from longreach.attention.gathered import Block, Gathered, logits_of
from longreach.attention.merge import Part
from longreach.attention.rotation import Rotation
from longreach.attention.step import Row
from longreach.attention.strided_step import of_block
from longreach.errors import UnsupportedError
from longreach.kv.sequence import Sequence

Narrow: TypeAlias = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor | None]
"""(layer, fresh keys and values, stored ones, each `[2, kv_heads, tokens in flight, dim]`) -> mask `[tokens in flight]`
of those that go on; None for all."""


class Narrowed(NamedTuple):
    """`tokens` that were computed again, by their numbers, rising; their keys, for where they stand, and values
    `[layers, kv_heads, tokens, dim]`: fresh ones as far as each of them went, from there on those that were stored."""

    tokens: list[int]
    keys: torch.Tensor
    values: torch.Tensor


class NarrowingStep:
    """The last `tokens` of a sequence, computed again. In every layer `narrow` is shown what they are now beside what
    is stored; those that it lets go attend, each to what stands before it: to fresh keys and values of those that still
    go, to stored ones of all others. Nothing is written to pages.

    `rows` are those that still go, as numbers `0 .. tokens - 1`, rising. Between two layers all others must be taken
    out of what travels (`Bridge.run_narrowing`). Raises UnsupportedError where the streams of the sequence do not have
    the same entries.
    """

    def __init__(self, rotations: Many[Rotation], sequence: Sequence, tokens: int, narrow: Narrow) -> None:
        seen = Gathered.of(Row(sequence, 0, tokens, sequence.position - tokens, 0), before=False)
        if seen is None:
            raise UnsupportedError("tokens cannot be computed again amidst what has other entries in some streams")
        self._seen = seen
        self._rotations = rotations
        self._narrow = narrow
        self._first = len(seen.positions) - tokens
        self._device, self._dtype = sequence.pool.keys.device, sequence.pool.dtype
        self.rows = torch.arange(tokens, device=self._device)
        self._chosen = self.rows
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Step.attend`; 0 for those that do not go on."""
        assert len(query) == len(self.rows)
        keys, values = self._seen.bring(layer, self._rotations[layer])
        mine = self._first + self.rows
        fresh = key.transpose(0, 1).float(), value.transpose(0, 1).float()
        go = self._narrow(layer, _both(*fresh), _both(keys[:, mine], values[:, mine]))
        on = torch.arange(len(mine), device=mine.device) if go is None else go.nonzero()[:, 0]
        if len(on) < len(mine):
            self.rows, mine = self.rows[on], mine[on]
            self._seen = self._seen.seen_from(self._seen.places[on.cpu().numpy()])
        keys[:, mine], values[:, mine] = (x[:, on] for x in fresh)
        self._keep(layer, keys, values)
        output = query.new_zeros(*query.shape[:2], values.shape[2])
        lse = torch.zeros(query.shape[:2], device=query.device)
        own, group = query[on], query.shape[1] // len(keys)
        for block in self._seen.blocks(scores.window, group):
            output[on[block.tokens]], lse[on[block.tokens]] = _attend(own[block.tokens], keys, values, block, scores)
        return output, lse

    def chosen(self) -> Narrowed:
        """The tokens that went further than the first layer, whose keys and values know of no other token."""
        for layer in range(len(self._keys), len(self._rotations)):  # nobody got there
            self._keep(layer, *self._seen.bring(layer, self._rotations[layer]))
        return Narrowed(self._chosen.tolist(), torch.stack(self._keys), torch.stack(self._values))

    def _keep(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Note a layer as it is now."""
        if layer == 1:  # from here on nobody joins those that are chosen
            for kept in (self._keys, self._values):
                kept[0] = kept[0][:, self.rows]
        if layer <= 1:
            self._chosen = self.rows
        at = slice(self._first, None) if layer == 0 else self._first + self._chosen
        self._keys.append(keys[:, at].to(self._dtype, copy=True))
        self._values.append(values[:, at].to(self._dtype, copy=True))


def _both(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Keys and values as one tensor; the narrower ones have zeros behind them."""
    wide = max(keys.shape[2], values.shape[2])
    return torch.stack([torch.nn.functional.pad(x, (0, wide - x.shape[2])) for x in (keys, values)])


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: Block, scores: Scores) -> Part:
    """Attention of the tokens of a block, `query [tokens, heads, dim]`, to the entries that they see."""
    form = of_block if keys.device.type == "cpu" else plain_of_block
    return form(query, keys, values, block, scores)


def plain_of_block(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: Block, scores: Scores) -> Part:
    """As `of_block`, on any device."""
    (tokens, rows), heads = query.shape[:2], len(keys)
    logits = logits_of(query, keys, block, scores)
    lse = torch.logsumexp(logits, -1, keepdim=True)
    output = logits.sub_(lse).exp_() @ values[:, block.entries]
    output, lse = (x.view(heads, tokens, rows // heads, -1).transpose(0, 1) for x in (output, lse))
    return output.reshape(tokens, rows, -1).to(query.dtype), lse.reshape(tokens, rows)
