"""Repair: some tokens of passages that were read apart are computed again, behind what really stands before them.

Which ones, a method of `longreach.kv.reuse` says. What is computed again lies in pages of the request's own; the stored
entries in its place are hidden from the request and stay as they are for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from longreach.engine.runner import Runner
from longreach.errors import UnsupportedError
from longreach.kv.pool import PagePool
from longreach.kv.reuse import Question, Reuse, StoredTokens
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence as KVSequence


@dataclass(frozen=True)
class Repair:
    """Repairs by `method`, at most `step_tokens` tokens at a time; `reserve(tokens)` makes room for so many tokens, or
    raises OutOfPagesError. Raises UnsupportedError for a method that chooses layer by layer, or moves chunks."""

    runner: Runner
    pool: PagePool
    streams: tuple[int, int]
    method: Reuse
    step_tokens: int
    reserve: Callable[[int], None]

    def __post_init__(self) -> None:
        if type(self.method).narrow is not Reuse.narrow or self.method.parallel:
            raise UnsupportedError(
                f"{type(self.method).__name__} chooses inside of the model: the engine cannot do that"
            )

    def __call__(self, opening: Segment, passages: Sequence[Segment], question: Sequence[int]) -> list[Segment]:
        """The segments of a prompt after repair, in place of those given, which are its to release when it fails:
        `opening`, whole `passages` right behind it, before the tokens of `question`. Raises OutOfPagesError."""
        chosen = self._chosen([opening, *passages], passages, question)
        first = passages[0].start + passages[0].shift
        tokens = [token for segment in passages for token in segment.tokens]
        if not chosen:
            return [opening, *passages]
        for segment in passages:
            begin = segment.start + segment.shift - first
            alive = np.ones(len(segment), bool)
            alive[[at - begin for at in chosen if begin <= at < begin + len(segment)]] = False
            segment.alive = None if alive.all() else alive
        patch = self._patch([opening, *passages], [tokens[at] for at in chosen], [first + at for at in chosen])
        return [opening, *passages[:-1], patch, passages[-1]]  # the last segment says where the text goes on

    def _chosen(self, segments: Sequence[Segment], passages: Sequence[Segment], question: Sequence[int]) -> list[int]:
        """Which tokens of the passages are computed again, counted over all of them."""
        ends = np.cumsum([len(segment) for segment in passages])
        chunks = [(int(end) - len(segment), int(end)) for segment, end in zip(passages, ends, strict=True)]
        looked = None
        if self.method.looks:
            weights = self.runner.look(self._sequence(segments), question[-self.step_tokens :], passages)
            looked = Question(torch.cat(weights, 1)[:, None, None])
        depths = self.method.depths(StoredTokens(chunks, self.streams[0], question=looked))
        return [int(at) for at in depths.cpu().nonzero()[:, 0]]

    def _patch(self, segments: Sequence[Segment], tokens: Sequence[int], positions: Sequence[int]) -> Segment:
        """A segment of the request's own with the KV of `tokens` at `positions` amidst `segments`."""
        self.reserve(len(tokens))
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
