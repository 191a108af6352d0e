"""Tree attention: many continuations of one sequence in one forward, without pages of their own.

Every node sees the sequence and its own ancestors (Miao et al. 2023, arXiv 2305.09781). The two parts are computed
apart and merged by their log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Protocol

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part, merge
from longreach.attention.step import Row
from longreach.kv.sequence import Sequence


@dataclass
class Tree:
    """A sequence, and per layer the keys and values `[nodes, kv_heads, dim]` of the nodes that follow it."""

    sequence: Sequence
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """What the nodes take."""
        return sum(x.nbytes for x in (*self.keys, *self.values))


class Past(Protocol):
    """Attends to a sequence as it is: `Step.past`."""

    def past(self, layer: int, query: torch.Tensor, row: Row, scores: Scores) -> Part: ...


class TreeStep:
    """New nodes on their way through the layers; `commit` adds them to the tree."""

    def __init__(self, inner: Past, tree: Tree, positions: Many[int], sees: torch.Tensor) -> None:
        self._inner = inner
        self._tree = tree
        self._positions = positions
        self._sees = sees
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Step.attend`."""
        if self._tree.keys:
            key = torch.cat([self._tree.keys[layer], key])
            value = torch.cat([self._tree.values[layer], value])
        self._keys.append(key)
        self._values.append(value)
        row = Row(self._tree.sequence, 0, len(query), self._tree.sequence.position, 0)
        return merge([self._inner.past(layer, query, row, scores), nodes(query, key, value, self._sees, scores)])

    def commit(self) -> None:
        """Make the new nodes part of the tree."""
        self._tree.keys, self._tree.values = self._keys, self._values


def nodes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sees: torch.Tensor, scores: Scores) -> Part:
    """What `query [new, heads, dim]` makes of the nodes `[nodes, kv_heads, dim]` that it `sees [new, nodes]`."""
    new, heads, dim = query.shape
    kv_heads = key.shape[1]
    rows = query.reshape(new, kv_heads, heads // kv_heads, dim).permute(1, 2, 0, 3)
    keys, values = (x.transpose(0, 1)[:, None] for x in (key, value))
    logits = (rows @ keys.transpose(-1, -2)).float() * scores.scale
    if scores.softcap is not None:
        logits = scores.softcap * torch.tanh(logits / scores.softcap)
    logits = logits.masked_fill(~sees, -torch.inf)
    lse = torch.logsumexp(logits, -1)
    output = torch.exp(logits - lse[..., None]).to(value.dtype) @ values
    return output.permute(2, 0, 1, 3).reshape(new, heads, -1), lse.permute(2, 0, 1).reshape(new, heads)
