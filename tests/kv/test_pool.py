"""Every page is free or held; nothing that somebody holds is ever overwritten."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from longreach.kv.compact import drop
from longreach.kv.free import FreePages
from longreach.kv.pool import EMPTY, OutOfPagesError, PagePool
from longreach.kv.prefix import PrefixCache
from longreach.kv.sequence import Sequence
from longreach.kv.swap import swap_in, swap_out

LAYERS, HEADS, SIZE = 2, 2, 4


class Pool(RuleBasedStateMachine):
    """Sequences that grow, are shared, dropped from, swapped and let go of, beside a model that keeps plain lists."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(60, SIZE, 1)
        self.prefix = PrefixCache(self.pool)
        self.model: dict[Sequence, list[list[tuple[int, int]]]] = {}  # per stream: (value, position) of its entries
        self.written = 0

    @rule(target=sequences)
    def begin(self) -> Sequence:
        sequence = Sequence(self.pool, LAYERS, HEADS)
        self.model[sequence] = [[] for _ in range(LAYERS * HEADS)]
        return sequence

    @rule(sequence=sequences, n=st.integers(1, 9))
    def append(self, sequence: Sequence, n: int) -> None:
        if sequence not in self.model:
            return
        free = self.pool.free
        try:
            sequence.reserve(n)
        except OutOfPagesError:
            assert self.pool.free == free
            return
        position = sequence.position
        first = sequence.append(list(range(position, position + n)))  # the same text for all, so that prefixes meet
        for stream, entries in enumerate(self.model[sequence]):
            layer, head = divmod(stream, HEADS)
            for at in range(n):
                self.written += 1
                column, entry = divmod(first + at, SIZE)
                page = sequence.tail.table[layer, head, column]
                assert self.pool.counts[page] >= 1
                self.pool.keys[page, entry] = self.written
                self.pool.values[page, entry] = self.written
                self.pool.positions[page, entry] = position + at
                entries.append((self.written, position + at))

    @rule(target=sequences, sequence=sequences, share=st.floats(0, 1))
    def share(self, sequence: Sequence, share: float) -> Sequence:
        twin = Sequence(self.pool, LAYERS, HEADS)
        self.model[twin] = [[] for _ in range(LAYERS * HEADS)]
        if sequence in self.model and all(segment.whole for segment in sequence.segments):
            n = int(share * len(sequence.tokens))
            for segment in sequence.share(n):
                twin.add(segment)
            self.model[twin] = [entries[:n] for entries in self.model[sequence]]
        return twin

    @rule(sequence=sequences)
    def keep(self, sequence: Sequence) -> None:
        if sequence in self.model:
            self.prefix.put(sequence)

    @rule(target=sequences, n=st.integers(0, 60))
    def find(self, n: int) -> Sequence:
        sequence = Sequence(self.pool, LAYERS, HEADS)
        for segment in self.prefix.find(list(range(n))):
            sequence.add(segment)
        self.model[sequence] = [self.entries(sequence, stream) for stream in range(LAYERS * HEADS)]
        assert all([at for _, at in entries] == list(range(sequence.position)) for entries in self.model[sequence])
        return sequence

    @rule(pages=st.integers(0, 60))
    def evict(self, pages: int) -> None:
        assert self.prefix.evict(pages) == (self.pool.free >= pages)

    @rule(sequence=sequences, seed=st.integers(0, 99), share=st.floats(0, 1))
    def drop(self, sequence: Sequence, seed: int, share: float) -> None:
        if sequence not in self.model:
            return
        random = np.random.default_rng(seed)
        kept = [sorted(random.permutation(len(e))[: int(share * len(e))].tolist()) for e in self.model[sequence]]
        before = self.pool.free
        try:
            freed = drop(
                sequence, lambda layer: [torch.tensor(kept[layer * HEADS + h], dtype=torch.long) for h in range(HEADS)]
            )
        except OutOfPagesError:
            sequence.release()  # pages that others hold too could not be copied
            del self.model[sequence]
            return
        del before, freed
        self.model[sequence] = [[e[at] for at in own] for e, own in zip(self.model[sequence], kept, strict=True)]

    @rule(sequence=sequences)
    def swap(self, sequence: Sequence) -> None:
        if sequence not in self.model:
            return
        swapped = swap_out(sequence)
        try:
            swap_in(sequence, swapped)
        except OutOfPagesError:
            assert self.pool.free < swapped.pages
            sequence.release()
            del self.model[sequence]

    @rule(sequence=sequences)
    def release(self, sequence: Sequence) -> None:
        if sequence in self.model:
            sequence.release()
            del self.model[sequence]

    @invariant()
    def every_page_is_free_or_held(self) -> None:
        self.pool.check()
        held = np.zeros(len(self.pool), int)
        for sequence in self.model:
            for segment in sequence.segments:
                np.add.at(held, segment.pages, 1)
        for entry in self.prefix._entries:
            for segment in entry.segments:
                np.add.at(held, segment.pages, 1)
        assert (held == self.pool.counts).all()

    @invariant()
    def nobody_loses_an_entry(self) -> None:
        for sequence, streams in self.model.items():
            assert [self.entries(sequence, stream) for stream in range(len(streams))] == streams

    def entries(self, sequence: Sequence, stream: int) -> list[tuple[int, int]]:
        layer, head = divmod(stream, HEADS)
        found = []
        for segment in sequence.segments:
            for at in range(int(segment.entries[layer, head])):
                page = segment.table[layer, head, at // SIZE]
                assert self.pool.keys[page, at % SIZE] == self.pool.values[page, at % SIZE]
                found.append((int(self.pool.keys[page, at % SIZE]), int(self.pool.positions[page, at % SIZE])))
        return found


TestPool = pytest.mark.thorough(Pool.TestCase)
TestPool.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_what_is_taken_has_no_entries() -> None:
    pool = PagePool(8, SIZE, 2)
    pages = pool.take(3)
    pool.positions[pool.index(pages)] = 7
    pool.release(pages)
    assert bool((pool.positions[pool.index(pool.take(8))] == EMPTY).all())


def test_more_than_there_is_cannot_be_taken_and_takes_nothing() -> None:
    pool = PagePool(8, SIZE, 2)
    pool.take(5)
    with pytest.raises(OutOfPagesError, match=r"4 pages .* 3 of 8 are free"):
        pool.take(4)
    assert pool.free == 3


def test_bytes_are_those_of_keys_values_and_positions() -> None:
    pool = PagePool(8, 16, 64, dtype=torch.bfloat16)
    pool.take(2)
    assert pool.page_bytes == 16 * (64 * 2 * 2 + 4)
    assert pool.used_bytes == 2 * pool.page_bytes


def test_neighbours_are_handed_out_together_where_there_are_any() -> None:
    free = FreePages(10)
    first, second, _ = free.take(3), free.take(3), free.take(4)
    free.put(first[:1])
    free.put(second)
    assert free.take(3).tolist() == [3, 4, 5]
    free.put(np.array([3, 4, 5], np.int32))
    assert sorted(free.take(4).tolist()) == [0, 3, 4, 5]


def test_what_others_hold_too_is_not_scrubbed() -> None:
    pool = PagePool(4, SIZE, 2)
    pages = pool.take(2)
    pool.keys[pool.index(pages)] = 5.0
    pool.share(pages[:1])
    pool.scrub(pages)
    assert bool((pool.keys[int(pages[0])] == 5.0).all())
    assert bool((pool.keys[int(pages[1])] == 0.0).all())
