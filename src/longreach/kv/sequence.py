"""Sequences: segments one after the other, of which the last one grows."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from longreach.kv.pool import PagePool
from longreach.kv.segment import Segment


@dataclass(eq=False)
class Sequence:
    """The KV of one request. The streams of a sequence may differ in length; its next token stands at `position`.

    The last segment is the writable tail unless it is `sealed`. `version` grows when pages are exchanged for others.
    """

    pool: PagePool
    layers: int
    heads: int
    segments: list[Segment] = field(default_factory=list)
    position: int = 0
    sealed: bool = True
    version: int = 0

    @property
    def tail(self) -> Segment:
        """The segment that grows; a new one where the last is sealed."""
        if self.sealed:
            self.segments.append(Segment.new(self.pool, self.layers, self.heads, self.position))
            self.sealed = False
        return self.segments[-1]

    @property
    def tokens(self) -> list[int]:
        """All tokens, those that some streams have dropped too."""
        return [token for segment in self.segments for token in segment.tokens]

    @property
    def tempered(self) -> bool:
        """Whether some of its segments stand side by side."""
        return any(segment.temper is not None for segment in self.segments)

    @property
    def pages(self) -> int:
        """How many pages all streams have together."""
        return sum(int((segment.table >= 0).sum()) for segment in self.segments)

    @property
    def room(self) -> int:
        """How many tokens more the tail has pages for."""
        return 0 if self.sealed else self.segments[-1].room

    def add(self, segment: Segment) -> None:
        """Let a sealed segment, whose hold passes to the sequence, be the next; the text goes on behind it."""
        self.segments.append(segment)
        self.position = segment.end
        self.sealed = True

    def reserve(self, tokens: int) -> None:
        """Room for `tokens` more in the tail. Raises OutOfPagesError, and changes nothing, where there is none."""
        fresh = self.sealed
        tail = self.tail
        try:
            tail.reserve(tokens)
        except BaseException:
            if fresh:
                self.segments.pop()
                self.sealed = True
            raise

    def append(self, tokens: Tokens[int]) -> int:
        """Count `tokens` in, whose keys and values are about to be written to the tail; room was reserved. Returns the
        entry of the first one in the tail."""
        first = self.tail.append(tokens)
        self.position += len(tokens)
        return first

    def share(self, tokens: int) -> list[Segment]:
        """The segments of the first `tokens` tokens, held once more; all must be whole up to there."""
        return share(self.segments, tokens)

    def release(self) -> int:
        """Let go of all pages. Returns how many became free."""
        freed = sum(segment.release() for segment in self.segments)
        self.segments, self.sealed = [], True
        return freed


def share(segments: Tokens[Segment], tokens: int) -> list[Segment]:
    """As many of `segments`, held once more, as hold the first `tokens` tokens; the last perhaps in part."""
    shared = []
    for segment in segments:
        if tokens <= 0:
            break
        shared.append(segment.share(min(tokens, len(segment))))
        tokens -= len(segment)
    return shared
