"""Repair: some tokens of passages that were read apart are computed again, behind what really stands before them.

Which ones, a method of `longreach.kv.reuse` says. What is computed again lies in pages of the request's own; the stored
entries in its place are hidden from the request and stay as they are for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from longreach.attention.narrowing import Narrowed
from longreach.engine.runner import Runner
from longreach.kv.pool import PagePool
from longreach.kv.reuse import Question, Reuse, StoredTokens
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence as KVSequence
from longreach.kv.store.entry import Entry
from longreach.kv.store.pages import place


@dataclass(frozen=True)
class Repair:
    """Repairs by `method`, at most `step_tokens` tokens at a time; `reserve(tokens)` makes room for so many tokens, or
    raises OutOfPagesError. A method that narrows has all tokens in one pass, whatever `step_tokens`: it compares them
    in every layer, and what a layer makes of them takes less than their keys and values do. Raises UnsupportedError for
    such a method where the layers of the model are not to be found."""

    runner: Runner
    pool: PagePool
    streams: tuple[int, int]
    method: Reuse
    step_tokens: int
    reserve: Callable[[int], None]

    def __post_init__(self) -> None:
        if self.narrows:
            self.runner.check_layers()

    @property
    def narrows(self) -> bool:
        """Whether the method chooses layer by layer."""
        return type(self.method).narrow is not Reuse.narrow

    def __call__(self, opening: Segment, passages: Sequence[Segment], question: Sequence[int]) -> list[Segment]:
        """The segments of a prompt after repair, in place of those given, which are its to release when it fails:
        `opening`, whole `passages` right behind it, before the tokens of `question`. Raises OutOfPagesError."""
        segments = [opening, *passages]
        chosen = self._chosen(segments, passages, question)
        first = passages[0].start + passages[0].shift
        tokens = [token for segment in passages for token in segment.tokens]
        narrowed: Narrowed | None = None
        if chosen and self.narrows:
            narrowed = self.runner.narrow(
                self._sequence(segments), tokens, lambda layer, *both: self.method.narrow(layer, len(tokens), *both)
            )
            chosen = narrowed.tokens
        if not chosen:
            return segments
        again, positions = [tokens[at] for at in chosen], [first + at for at in chosen]
        self.reserve(len(chosen))
        _hide(passages, chosen, first)
        if narrowed is not None:
            patch = place(self.pool, again, Entry(narrowed.keys, narrowed.values), positions=positions)
        else:
            patch = self._patch(segments, again, positions)
        return [opening, *passages[:-1], patch, passages[-1]]  # the last segment says where the text goes on

    def _chosen(self, segments: Sequence[Segment], passages: Sequence[Segment], question: Sequence[int]) -> list[int]:
        """Which tokens of the passages are computed again, counted over all of them."""
        ends = np.cumsum([len(segment) for segment in passages])
        chunks = [(int(end) - len(segment), int(end)) for segment, end in zip(passages, ends, strict=True)]
        looked = None
        if self.method.looks:
            weights = self.runner.look(self._sequence(segments), question[-self.step_tokens :], passages)
            looked = Question(torch.cat(weights, 1)[:, None, None])
        noted = [segment.outward for segment in passages if segment.outward is not None]
        outward = torch.cat(noted) if len(noted) == len(passages) else None
        depths = self.method.depths(StoredTokens(chunks, self.streams[0], question=looked, outward=outward))
        return [int(at) for at in depths.cpu().nonzero()[:, 0]]

    def _patch(self, segments: Sequence[Segment], tokens: Sequence[int], positions: Sequence[int]) -> Segment:
        """A segment of the request's own with the KV of `tokens` at `positions` amidst `segments`; there is room."""
        patch = Segment.new(self.pool, *self.streams, start=positions[-1])
        patch.whole = False  # its tokens do not stand one after the other: where, is written beside each
        patch.reserve(len(tokens))
        try:
            sequence = self._sequence([*segments, patch])
            sequence.sealed = False
            for at in range(0, len(tokens), self.step_tokens):
                some = slice(at, at + self.step_tokens)
                self.runner.patch(sequence, tokens[some], positions[some])
        except BaseException:
            patch.release()
            raise
        patch.start = positions[-1] + 1 - len(tokens)
        return patch

    def _sequence(self, segments: Sequence[Segment]) -> KVSequence:
        """A view of segments that others hold."""
        whole = [segment for segment in segments if segment.whole]
        return KVSequence(self.pool, *self.streams, segments=list(segments), position=whole[-1].end)


def _hide(passages: Sequence[Segment], chosen: Sequence[int], first: int) -> None:
    """Hide the stored entries of the tokens that are `chosen`, counted from the position `first` on."""
    for segment in passages:
        begin = segment.start + segment.shift - first
        alive = np.ones(len(segment), bool)
        alive[[at - begin for at in chosen if begin <= at < begin + len(segment)]] = False
        segment.alive = None if alive.all() else alive
