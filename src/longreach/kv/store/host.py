"""The tier in host memory: entries as the bytes that the codec made."""

from __future__ import annotations

from longreach.kv.store.format import Encoded
from longreach.kv.store.key import Key
from longreach.kv.store.ranking import Ranking, Worth
from longreach.kv.store.stats import Counts, TierStats


class HostTier:
    """At most `limit` bytes of encoded entries. Its owner sees to it that one thread at a time is in it."""

    def __init__(self, limit: int) -> None:
        self.counts = Counts()
        self._ranking: Ranking[Key] = Ranking(limit)
        self._held: dict[Key, Encoded] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def get(self, key: Key) -> Encoded | None:
        """An entry, if it is here; counted."""
        found = self._held.get(key)
        self.counts.hits += found is not None
        self.counts.misses += found is None
        return found

    def look(self, key: Key) -> Encoded | None:
        """An entry, if it is here; not counted."""
        return self._held.get(key)

    def touch(self, key: Key) -> None:
        """Note that an entry was wanted, if it is here."""
        if key in self._held:
            self._ranking.touch(key)

    def hits(self, key: Key) -> int:
        """How often an entry was wanted; 1 where it is not known."""
        return self._ranking.hits(key)

    def add(self, key: Key, entry: Encoded, hits: int, pinned: set[Key]) -> list[tuple[Key, Encoded, int]] | None:
        """Keep an entry; those that made room for it, with how often they were wanted. None where it does not fit."""
        size = len(entry.payload)
        self.discard(key)
        gone = self._ranking.room(size, pinned)
        if gone is None:
            return None
        self._ranking.add(key, Worth(size, entry.seconds, hits, self._ranking.age))
        self._held[key] = entry
        self.counts.evicted += len(gone)
        return [(other, self._held.pop(other), worth.hits) for other, worth in gone.items()]

    def discard(self, key: Key) -> None:
        """Forget an entry, if it is here."""
        self._held.pop(key, None)
        self._ranking.remove(key)

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._held):
            self.discard(key)

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
