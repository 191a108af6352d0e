"""The contract of KV policies.

A policy says which entries stay (`keep`) or which pages are read (`select`), one layer at a time; the engine does the
rest: it frees pages, or reads fewer. What a policy does not speak of stays exact, and at a budget of everything every
policy equals exact attention. Layers with a sliding window hold and read their window, whatever the policy: they are
small, and no policy is asked about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.errors import SpecError
from longreach.registry import Family


@dataclass(frozen=True)
class LayerView:
    """The streams of one sequence in one layer, before anything was dropped from them.

    `keys`, `values [kv_heads, entries, dim]` in the order of the text; `queries [tokens, heads, dim]` are those of the
    last tokens, as many as the policy observes.
    """

    layer: int
    keys: torch.Tensor
    values: torch.Tensor
    queries: torch.Tensor
    scale: float


class Policy:
    """What to keep of the KV. `observes`: of how many of the last prompt tokens it wants the queries; `every`: after
    how many tokens of the answer `keep` is asked again, 0 for never.

    A policy that `drops` has `keep`; one that `skips` has `select`, and `pages` where it goes by the bounds of pages.
    """

    drops: ClassVar[bool] = False
    skips: ClassVar[bool] = False
    observes: int = 0
    every: int = 0

    def keeps_all(self, prompt: int, tokens: int) -> bool:
        """Whether all is kept and read of a prompt of so many tokens, and of up to `tokens` with its answer: then the
        request is computed as one without a policy is, to the last bit."""
        return not (self.drops or self.skips)

    def keep(self, view: LayerView) -> list[torch.Tensor]:
        """For each KV head, the indices of the entries that stay, ascending."""
        raise NotImplementedError

    def stay(self, layer: int, head: int, positions: torch.Tensor, position: int) -> torch.Tensor:
        """What stays while the answer grows: a mask for the entries of one KV head, which stand at `positions
        [entries]`; the next token will stand at `position`."""
        raise NotImplementedError

    def pages(self, page_size: int) -> int | None:
        """How many full pages each KV head reads for a token, where those are the ones whose bounds on the score are
        greatest, as `attention.triton_select` finds them; None where `select` goes another way."""
        return None

    def select(self, query: torch.Tensor, low: torch.Tensor, high: torch.Tensor, page_size: int) -> torch.Tensor:
        """The full pages `[kv_heads, some]` to read for the query `[heads, dim]` of one token; `low`, `high [kv_heads,
        pages, dim]` are the least and the greatest values of the keys in each page of `page_size` entries."""
        raise NotImplementedError


def amount(budget: float, of: int) -> int:
    """A budget in tokens: a share up to 1.0, or, above, a number of tokens; at least one. Not more than `of`."""
    return min(of, max(1, round(budget * of) if budget <= 1 else int(budget)))


def check_budget(budget: float) -> None:
    """Raises SpecError unless `budget` can be one."""
    if not budget > 0:
        raise SpecError(f"budget={budget} is no budget: a share up to 1.0, or a number of tokens")


policies: Family[Policy] = Family("policies", "longreach.kv.policies")
