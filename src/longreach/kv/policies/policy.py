"""The contract of KV policies.

A policy says what to keep (`keep`) or what to read (`select`) of the streams of one layer; the engine does the rest:
frees pages, or reads fewer. What a policy does not speak of stays exact. At a budget of everything, every policy
equals exact attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.registry import Family


@dataclass(frozen=True)
class LayerView:
    """The streams of one sequence in one layer, as a policy may see them.

    `keys`, `values [kv_heads, entries, dim]` and `positions [kv_heads, entries]`, in the order of the pages; `queries
    [tokens, heads, dim]` are those of the last tokens of the prompt, as many as the policy observes. `length` is the
    number of tokens of the whole sequence.
    """

    layer: int
    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    queries: torch.Tensor
    scale: float
    length: int


class Policy:
    """What to keep of the KV. `observes` is how many of the last prompt tokens show their queries.

    A policy that drops overrides `keep`, one that only skips overrides `select`.
    """

    drops: ClassVar[bool] = False
    skips: ClassVar[bool] = False
    observes: int = 0

    def keep(self, view: LayerView) -> list[torch.Tensor]:
        """The entries of each KV head that stay, as ascending indices into the view's."""
        raise NotImplementedError

    def select(self, layer: int, query: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """The columns to read, `[kv_heads, columns]`, for the query `[heads, dim]` of one token; `low`, `high
        [kv_heads, pages, dim]` are the least and the greatest values of the keys of each page."""
        raise NotImplementedError


policies: Family[Policy] = Family("policies", "longreach.kv.policies")
