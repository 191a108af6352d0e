"""The prefix cache: what was read before, found by the tokens that a new prompt begins with.

Every full page of tokens has a hash that chains the one before it; a hit compares the tokens themselves. Beyond the
last full page the match goes on token by token, since a segment can be shared up to any token. The chain begins with
the tenant, whose entries nobody else finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from longreach.kv.pool import PagePool
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence, share


@dataclass(eq=False, slots=True)
class _Entry:
    tokens: list[int]
    segments: list[Segment]
    tenant: str


class PrefixCache:
    """Holds pages of sequences that began at position 0, until somebody needs them more; used last, let go of last."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._entries: dict[_Entry, None] = {}  # ordered: the one used last stands last
        self._index: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tokens: Tokens[int], tenant: str = "") -> list[Segment]:
        """Segments, held once more for the caller, with the longest beginning of `tokens` that `tenant` has read; none
        where none is known to the length of a page."""
        found = self._longest(tokens, tenant)
        if found is None:
            return []
        entry, shared = found
        self._entries.pop(entry)
        self._entries[entry] = None
        return share(entry.segments, shared)

    def put(self, sequence: Sequence, tenant: str = "") -> None:
        """Keep what `sequence` has read for `tenant`, in place of what it continues. Does nothing where its streams are
        not whole, be it that a layer let go of what left its window."""
        if not all(_plain(segment) for segment in sequence.segments):
            return
        tokens = sequence.tokens
        if len(tokens) < self._pool.page_size:
            return
        continued = self._longest(tokens, tenant)
        if continued and continued[1] == len(tokens):
            return
        entry = _Entry(tokens, sequence.share(len(tokens)), tenant)
        if continued and continued[1] == len(continued[0].tokens):
            self._drop(continued[0])
        self._entries[entry] = None
        for key in self._keys(tokens, tenant):
            self._index[key] = entry

    def evict(self, pages: int) -> bool:
        """Let go of entries, the one unused for longest first, until `pages` are free. False where that cannot be."""
        while self._pool.free < pages and self._entries:
            self._drop(next(iter(self._entries)))
        return self._pool.free >= pages

    def clear(self) -> None:
        """Let go of everything."""
        while self._entries:
            self._drop(next(iter(self._entries)))

    def segments(self) -> Iterator[Segment]:
        """All that is kept."""
        for entry in self._entries:
            yield from entry.segments

    def _longest(self, tokens: Tokens[int], tenant: str) -> tuple[_Entry, int] | None:
        size = self._pool.page_size
        keys = list(self._keys(tokens, tenant))
        for blocks in range(len(keys), 0, -1):
            entry = self._index.get(keys[blocks - 1])
            if entry is None or entry.tenant != tenant:
                continue
            if entry.tokens[: blocks * size] != list(tokens[: blocks * size]):
                continue
            shared = blocks * size
            limit = min(len(tokens), len(entry.tokens))
            while shared < limit and tokens[shared] == entry.tokens[shared]:
                shared += 1
            return entry, shared
        return None

    def _keys(self, tokens: Tokens[int], tenant: str) -> Iterator[int]:
        size, key = self._pool.page_size, hash(tenant)
        for at in range(0, len(tokens) - size + 1, size):
            key = hash((key, tuple(tokens[at : at + size])))
            yield key

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry]
        for key in self._keys(entry.tokens, entry.tenant):
            if self._index.get(key) is entry:
                del self._index[key]
        for segment in entry.segments:
            segment.release()


def _plain(segment: Segment) -> bool:
    """Whether the segment stands where it was read, with all its entries."""
    return segment.complete and segment.alive is None and segment.shift == 0
