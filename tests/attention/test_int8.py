"""Whoever reads pages of 8 bits sees the numbers that they stand for: what float32 pages with the same numbers give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from longreach.attention.attend import Scores
from longreach.attention.looking import LookingStep
from longreach.attention.numba_step import NumbaStep
from longreach.attention.plain_step import PlainStep
from longreach.attention.rotation import Rotation
from longreach.attention.selected import SelectedPages
from longreach.attention.step import Row, Step, begin
from longreach.attention.strided_step import StridedStep
from longreach.kv.coding import numbers_of, parts_of
from longreach.kv.compact import drop
from longreach.kv.policies import policies
from longreach.kv.pool import PagePool
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence
from longreach.kv.store.entry import Entry
from longreach.kv.store.pages import place

HEADS, GROUP, DIM, SIZE = 3, 2, 16, 16
TURNS = Rotation(torch.tensor([1.0, 0.3, 0.01], dtype=torch.float64))
SCORES = [Scores(0.25), Scores(0.25, window=30), Scores(0.25, softcap=3.0)]
NAMES = ["plain", "window", "softcap"]
STEPS: list[type[Step]] = [PlainStep, StridedStep, NumbaStep]


class Twins:
    """Two pools, one of 8 bits and one of float32 with the same numbers, and a sequence of segments in each."""

    def __init__(self, passages: int, shift: int = 0, dropped: bool = False) -> None:
        self.make = torch.Generator().manual_seed(passages)
        self.pool = PagePool(400, SIZE, DIM, dtype=torch.int8)
        self.sequence = Sequence(self.pool, 1, HEADS)
        for at in range(passages):
            length = 37 + at
            keys, values = self.random(1, HEADS, length, DIM), self.random(1, HEADS, length, DIM)
            segment = place(self.pool, range(length), Entry(keys, values, self.sequence.position - shift))
            segment.shift = shift
            if at == 1:
                segment.alive = np.arange(length) % 5 != 0
            self.sequence.add(segment)
        if dropped:
            drop(self.sequence, lambda layer: [torch.arange(head, 37, 2) for head in range(HEADS)])

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.make)

    def new(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of new tokens, which pages of 8 bits hold as they are."""
        parts = parts_of(self.random(tokens, HEADS, DIM), self.random(tokens, HEADS, DIM), torch.int8)
        return numbers_of(parts)

    def both(self, *sequences: Sequence) -> list[list[Sequence]]:
        """Sequences of the pool of 8 bits, and the same ones in one of float32."""
        other = PagePool(len(self.pool), SIZE, DIM)
        other.take(self.pool.used)  # from the first one on, as the other pool gave them
        other.keys[:], other.values[:] = self.pool.read(slice(None))
        other.positions[:] = self.pool.positions

        def moved(segment: Segment) -> Segment:
            return replace(segment, pool=other, tokens=list(segment.tokens), entries=segment.entries.copy(), _runs={})

        twins = [replace(one, pool=other, segments=[moved(segment) for segment in one.segments]) for one in sequences]
        return [list(sequences), twins]


def close(found: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scores", SCORES, ids=NAMES)
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize(("passages", "shift", "dropped"), [(2, 0, False), (5, 40, False), (1, 0, True)])
@pytest.mark.parametrize("kind", STEPS)
def test_new_tokens_see_the_numbers(
    kind: type[Step], passages: int, shift: int, dropped: bool, count: int, scores: Scores
) -> None:
    twins = Twins(passages, shift, dropped)
    twins.sequence.reserve(40)
    query, (key, value) = twins.random(count, HEADS * GROUP, DIM), twins.new(count)
    chunks, after = [], []
    for (sequence,) in twins.both(twins.sequence):
        step = kind(sequence.pool, [TURNS], begin([(sequence, range(count))]))
        chunks.append(step.attend(0, query, key, value, scores))
        step = kind(sequence.pool, [TURNS], begin([(sequence, [0])]))
        after.append(step.attend(0, query[:1], key[:1], value[:1], scores))
    close(chunks)
    close(after)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", STEPS)
def test_sequences_that_share_see_the_numbers(kind: type[Step], count: int) -> None:
    twins = Twins(2)
    twins.sequence.segments[1].alive = None
    other = Sequence(twins.pool, 1, HEADS)
    for segment in twins.sequence.share(60):
        other.add(segment)
    for sequence in (twins.sequence, other):
        sequence.reserve(20)
    query, (key, value) = twins.random(2 * count, HEADS * GROUP, DIM), twins.new(2 * count)
    found = []
    for sequences in twins.both(twins.sequence, other):
        rows = begin([(sequence, range(count)) for sequence in sequences])
        found.append(kind(sequences[0].pool, [TURNS], rows).attend(0, query, key, value, SCORES[0]))
    close(found)


def test_a_question_that_looks_sees_the_numbers() -> None:
    twins = Twins(3, shift=20)
    query, (key, value) = twins.random(6, HEADS * GROUP, DIM), twins.new(6)
    found, weights = [], []
    for (sequence,) in twins.both(twins.sequence):
        step = LookingStep([TURNS], sequence, 6)
        found.append(step.attend(0, query, key, value, SCORES[0]))
        weights.append(torch.cat(step.weights(sequence.segments), 1))
    close(found)
    torch.testing.assert_close(*weights)


def test_selected_pages_are_those_with_the_numbers() -> None:
    twins = Twins(3)
    query, found = twins.random(1, HEADS * GROUP, DIM), []
    for (sequence,) in twins.both(twins.sequence):
        reader = SelectedPages(policies.make("page_select(budget=32)"), sequence)
        found.append(reader.read(0, query, sequence.position, SCORES[0], TURNS))
    close(found)


@pytest.mark.parametrize("kind", STEPS)
def test_nodes_of_a_tree_see_the_numbers(kind: type[Step]) -> None:
    twins = Twins(5)
    query, found = twins.random(4, HEADS * GROUP, DIM), []
    for (sequence,) in twins.both(twins.sequence):
        row = Row(sequence, 0, 4, sequence.position, 0)
        found.append(kind(sequence.pool, [TURNS], []).past(0, query, row, SCORES[0]))
    close(found)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", STEPS)
def test_what_is_not_finite_is_not_lost_where_it_is_written(kind: type[Step], wrong: float) -> None:
    pool = PagePool(20, SIZE, DIM, dtype=torch.int8)
    sequence = Sequence(pool, 1, HEADS)
    sequence.reserve(1)
    key, value = torch.randn(2, 1, HEADS, DIM)
    key[0, 1, 3] = wrong
    step = kind(pool, [Rotation.none()], begin([(sequence, [7])]))
    step.attend(0, torch.randn(1, HEADS * GROUP, DIM), key, value, SCORES[0])
    found = [pool.read(int(page))[0][0].isfinite() for page in sequence.tail.table[0, :, 0]]
    assert [bool(each.any()) for each in found] == [True, False, True]
