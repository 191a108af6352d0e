"""Which entries queries see, in the forms that products want it in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class Seen:
    """`mask [rows, entries]` (bool) is true where a row of queries sees an entry."""

    mask: torch.Tensor

    @classmethod
    def where(cls, mask: torch.Tensor, group: int) -> Seen | None:
        """Of tokens with `group` rows each, from `mask [tokens, entries]`; None where all is seen."""
        return None if mask.all() else cls(mask.repeat_interleave(group, 0))

    @cached_property
    def added(self) -> torch.Tensor:
        """What is added to scores: 0, or minus infinity where nothing is to be seen, `[1, 1, rows, entries]`."""
        return torch.zeros_like(self.mask, dtype=torch.float32).masked_fill_(~self.mask, -torch.inf)[None, None]

    @cached_property
    def blind(self) -> torch.Tensor | None:
        """The rows that see nothing, `[rows]` (bool); None where there is none."""
        rows = ~self.mask.any(-1)
        return rows if rows.any() else None
