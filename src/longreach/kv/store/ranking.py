"""Which entry of a tier goes first: GreedyDual-Size with frequency (Cherkasova 1998, HP Labs HPL-98-69R1)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

REMEMBERED = 8192
"""Of how many past entries the hits are remembered."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What an entry costs to have and to lose: `bytes`, the `seconds` of computing it, how often it was wanted, and how
    old the tier was when it was last wanted (see `Ranking`)."""

    bytes: int
    seconds: float
    hits: int = 1
    age: float = 0.0

    @property
    def priority(self) -> float:
        """age + hits · seconds / bytes."""
        return self.age + self.hits * self.seconds / max(1, self.bytes)


class Ranking(Generic[K]):
    """Entries of at most `limit` bytes in the order in which they go.

    The lowest priority goes first, and the tier is then as old as that priority: an entry must be wanted again to
    stay ahead of newer ones. Of equals, the one unused for longest goes. Beyond the source, an entry that comes back is
    as well known as when it made room, if it is among the last `remembered` that did (`bench/store.py` says what that
    saves). Adding, using and removing take O(log n).
    """

    def __init__(self, limit: int, remembered: int = REMEMBERED) -> None:
        self.limit = limit
        self._remembered = remembered
        self.age = 0.0
        self.bytes = 0
        self._worths: dict[K, Worth] = {}
        self._serials: dict[K, int] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0
        self._past: dict[K, int] = {}  # hits of entries that made room

    def __len__(self) -> int:
        return len(self._worths)

    def __contains__(self, key: K) -> bool:
        return key in self._worths

    def __iter__(self) -> Iterator[K]:
        return iter(self._worths)

    def __getitem__(self, key: K) -> Worth:
        return self._worths[key]

    def hits(self, key: K) -> int:
        """How often an entry was wanted; 1 where it is not known."""
        worth = self._worths.get(key)
        return max(1, worth.hits) if worth else 1

    def add(self, key: K, worth: Worth) -> None:
        """Count an entry in, in place of an older self. If it was here in the past, that counts too."""
        self.remove(key)
        worth = replace(worth, hits=max(worth.hits, self._past.pop(key, 0) + 1))
        self._worths[key] = worth
        self.bytes += worth.bytes
        self._push(key)

    def touch(self, key: K) -> Worth:
        """Note that an entry was wanted; its new worth."""
        worth = self._worths[key]
        self._worths[key] = replace(worth, hits=worth.hits + 1, age=self.age)
        self._push(key)
        return self._worths[key]

    def remove(self, key: K) -> None:
        """Forget an entry, if it is there."""
        if key in self._worths:
            self.bytes -= self._worths.pop(key).bytes
            del self._serials[key]

    def pop(self, stays: Callable[[K], bool]) -> tuple[K, Worth] | None:
        """Forget the entry that goes first among those that need not stay, and grow as old as it was. None where all
        must stay."""
        passed = []
        found = None
        while self._heap:
            item = heapq.heappop(self._heap)
            priority, serial, key = item
            if self._serials.get(key) != serial:
                continue
            if stays(key):
                passed.append(item)
                continue
            self.age = max(self.age, priority)
            found = key, self._worths[key]
            self.remove(key)
            break
        for item in passed:
            heapq.heappush(self._heap, item)
        return found

    def room(self, size: int, pinned: Collection[K]) -> dict[K, Worth] | None:
        """Forget entries that are not `pinned` until `size` bytes more fit: those that went. None, and all is as it
        was, where that cannot be."""
        return self.shrink(size, pinned.__contains__) if self.fits(size, pinned) else None

    def fits(self, size: int, pinned: Collection[K]) -> bool:
        """Whether `size` bytes fit beside those that are pinned."""
        return size + sum(self._worths[key].bytes for key in pinned if key in self._worths) <= self.limit

    def shrink(self, size: int, stays: Callable[[K], bool]) -> dict[K, Worth]:
        """Forget entries that need not stay until `size` bytes more fit, or all that is left must stay: those that
        went."""
        gone = {}
        while self.bytes + size > self.limit and (popped := self.pop(stays)) is not None:
            gone[popped[0]] = popped[1]
            self._past[popped[0]] = popped[1].hits
        while len(self._past) > self._remembered:
            del self._past[next(iter(self._past))]
        return gone

    def catch_up(self) -> None:
        """Be as old as the entries show: with those of an older ranking, a young one would let newcomers go first."""
        priorities = (worth.priority for worth in self._worths.values() if worth.hits)
        self.age = max(self.age, min(priorities, default=0.0))

    def _push(self, key: K) -> None:
        self._serial += 1
        self._serials[key] = self._serial
        heapq.heappush(self._heap, (self._worths[key].priority, self._serial, key))
        if len(self._heap) > 64 + 4 * len(self._worths):
            self._heap = [item for item in self._heap if self._serials.get(item[2]) == item[1]]
            heapq.heapify(self._heap)
