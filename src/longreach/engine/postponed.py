"""Passages that are to be read apart when there is time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from longreach.kv.store.key import Key

MOST = 4096
"""Passages that are known at once; of more, those are forgotten that came first."""


@dataclass(frozen=True, slots=True)
class Met:
    """Where a passage was met: behind which opening, for whom."""

    opening: tuple[int, ...]
    tenant: str


class Postponed:
    """What prompts had that were read as a whole."""

    def __init__(self) -> None:
        self._met: OrderedDict[Key, Met] = OrderedDict()

    def holds_back(self, missing: Collection[Key], tokens: int, met: Met) -> bool:
        """Whether a prompt with so many `tokens` of passages, of which those of `missing` are not at hand, is better
        read as a whole: where half of them were never met before. Its passages are known from then on."""
        new = sum(len(key.tokens) for key in missing if key not in self._met)
        if 2 * new <= tokens:
            return False
        self._met.update(dict.fromkeys(missing, met))
        while len(self._met) > MOST:
            self._met.popitem(last=False)
        return True

    def take(self) -> tuple[Key, Met] | None:
        """The passage that was met last, which is no longer here then."""
        return self._met.popitem() if self._met else None

    def clear(self) -> None:
        self._met.clear()
