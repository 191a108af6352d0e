"""The tier in device pages: each chunk once, whoever uses it. Imported only where a model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from longreach.kv.pool import PagePool
from longreach.kv.segment import Segment
from longreach.kv.store.key import Key
from longreach.kv.store.pages import plain
from longreach.kv.store.ranking import Ranking, Worth
from longreach.kv.store.stats import Counts, TierStats


@dataclass(frozen=True, eq=False, slots=True)
class Resident:
    """A sealed segment that the tier holds. `original`: as the model computed it, not as a codec gave it back."""

    segment: Segment
    seconds: float
    original: bool


Fall: TypeAlias = Callable[[Key, Resident], None]


class DeviceTier:
    """Segments of at most `limit` bytes in the pages of `pool`, each held once by the tier and once more by each
    request that uses it. What requests use stays, over the limit too: to let go of it would free nothing, and the next
    request would take pages for the same chunk again. For the thread that runs the engine; `fall` is given what is
    about to go."""

    def __init__(self, pool: PagePool, limit: int, fall: Fall) -> None:
        self.pool = pool
        self.counts = Counts()
        self._fall = fall
        self._ranking: Ranking[Key] = Ranking(limit)
        self._held: dict[Key, Resident] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def get(self, key: Key) -> Segment | None:
        """The segment, held once more for the caller; counted."""
        found = self._held.get(key)
        self.counts.hits += found is not None
        self.counts.misses += found is None
        return None if found is None else found.segment.share()

    def look(self, key: Key) -> Resident | None:
        """What is held, and held no more than before; not counted."""
        return self._held.get(key)

    def touch(self, key: Key) -> None:
        """Note that an entry was wanted, if it is here."""
        if key in self._held:
            self._ranking.touch(key)

    def add(self, key: Key, resident: Resident, hits: int, pinned: set[Key]) -> bool:
        """Hold the pages of a segment once more, unless the chunk is here already, or does not fit: then False."""
        segment = resident.segment
        assert plain(segment)
        assert tuple(segment.tokens) == key.tokens
        if key in self._held:
            return False
        size = len(segment.pages) * self.pool.page_bytes
        if not self._ranking.fits(size, pinned):
            return False
        for other in self._ranking.shrink(size, lambda other: other in pinned or self._in_use(other)):
            self._drop(other, self._fall)
        held = segment.share()
        held.shift = 0  # where this request uses it is nothing to the next
        self._held[key] = Resident(held, resident.seconds, resident.original)
        self._ranking.add(key, Worth(size, resident.seconds, hits, self._ranking.age))
        return True

    def evict(self, pages: int, pinned: set[Key]) -> bool:
        """Let go of entries that no request uses until `pages` pages are free. False where that is not enough; what is
        in use would free nothing, and stays."""
        while self.pool.free < pages:
            popped = self._ranking.pop(lambda key: key in pinned or self._in_use(key))
            if popped is None:
                return False
            self._drop(popped[0], self._fall)
        return True

    def drop(self, fall: Fall) -> None:
        """Let go of everything; `fall` is given it first."""
        for key in list(self._held):
            self._ranking.remove(key)
            self._drop(key, fall)

    def clear(self) -> None:
        """Let go of everything; nothing falls."""
        for key, resident in self._held.items():
            self._ranking.remove(key)
            resident.segment.release()
        self._held.clear()

    def stats(self) -> TierStats:
        counts = self.counts
        return TierStats(
            self._ranking.limit,
            len(self._held),
            self._ranking.bytes,
            counts.hits,
            counts.misses,
            counts.damaged,
            counts.evicted,
        )

    def _in_use(self, key: Key) -> bool:
        return bool((self.pool.counts[self._held[key].segment.pages] > 1).all())

    def _drop(self, key: Key, fall: Fall) -> None:
        resident = self._held.pop(key)
        self.counts.evicted += 1
        fall(key, resident)
        resident.segment.release()
