"""What the store would hold once prompts' passages were read ahead, told by their token ids alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from longreach.engine.requests import Part, split
from longreach.kv.store.key import Key


class Reckoning:
    """The entries that `longreach.engine.passage_reader` would make, by how many tokens they have: of the different
    `passages`, of the `openings` of prompts, and of the `filler` behind each of these, where passages are read behind
    some."""

    def __init__(self, filler: Sequence[int] = ()) -> None:
        self.filler = tuple(filler)
        self.passages: Counter[int] = Counter()
        self.openings: Counter[int] = Counter()
        self.fillers: Counter[int] = Counter()
        self._seen: set[str] = set()

    def add(self, parts: Sequence[Part]) -> None:
        """Count a prompt's passages and what stands before them, as far as they are new."""
        opening, passages = split(parts)
        if not passages:
            return
        behind = Key.of("", opening)
        if self._new(behind):
            self.openings[len(opening)] += 1
            if self.filler:
                self.fillers[len(self.filler)] += 1
        for passage in passages:
            if self._new(Key.of("", passage, behind.digest)):
                self.passages[len(passage)] += 1

    def _new(self, key: Key) -> bool:
        new = key.digest not in self._seen
        self._seen.add(key.digest)
        return new


def tokens_of(entries: Counter[int]) -> int:
    """Of all of them together."""
    return sum(tokens * count for tokens, count in entries.items())
