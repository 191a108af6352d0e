"""What sequences share is attended to once, and nothing else comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attention.steps import TOLERANCE, bridge_of, pool_of, read, sequence_of, tokens
from families import CONFIGS, NOT_RELOCATABLE
from longreach.attention.numba_step import NumbaStep
from longreach.attention.plain_step import PlainStep
from longreach.attention.shared import Shared, SharedBeginnings, shared_beginnings
from longreach.attention.step import Row, begin
from longreach.attention.strided_step import StridedStep
from longreach.engine.decode_share import Group, group_of
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence
from longreach.model.bridge import Bridge

PROMPT, BRANCH = 150, 60


def tree(bridge: Bridge, pool: PagePool) -> list[Sequence]:
    """The one that read a prompt, four that share it, one that shares a part of it; of the four, two that share more;
    and one with a text of its own."""
    first = sequence_of(bridge, pool)
    read(bridge, StridedStep, [(first, tokens(PROMPT, 1))])
    branch = followers(bridge, pool, [first], PROMPT)[0]
    read(bridge, StridedStep, [(branch, tokens(BRANCH, 2))])
    found = [first, branch, *followers(bridge, pool, [branch], PROMPT + BRANCH)]
    found += [*followers(bridge, pool, [first, first], PROMPT), *followers(bridge, pool, [first], 90)]
    own = sequence_of(bridge, pool)
    for seed, sequence in enumerate([*found, own], start=3):
        read(bridge, StridedStep, [(sequence, tokens(3 * seed, seed))])
    return [own, *found]


def followers(bridge: Bridge, pool: PagePool, of: list[Sequence], count: int) -> list[Sequence]:
    """Sequences that begin with the first `count` tokens of each of `of`."""
    found = []
    for one in of:
        sequence = sequence_of(bridge, pool)
        for segment in one.share(count):
            sequence.add(segment)
        found.append(sequence)
    return found


def shared_by(sequences: list[Sequence], worth: int) -> SharedBeginnings | None:
    """What a step of them would share; they stay as they are."""
    rows = begin([(sequence, [5]) for sequence in sequences if not sequence.reserve(1)])
    found = shared_beginnings(rows, worth)
    for sequence in sequences:
        sequence.segments[-1].tokens.pop()
        sequence.segments[-1].entries -= 1
        sequence.position -= 1
    return found


def numbered(rows: list[Row]) -> list[Row]:
    """`rows` as those of a step of their own."""
    return [replace(row, first=at) for at, row in enumerate(rows)]


def spans(parts: list[Shared]) -> list[tuple[list[int], int, int]]:
    return [(part.tokens.tolist(), part.first, part.length) for part in parts]


@pytest.mark.parametrize("page_size", [4, 16])
def test_everything_that_is_shared_is_found_to_the_entry(page_size: int) -> None:
    bridge = bridge_of("llama")
    found = shared_by(tree(bridge, pool_of(bridge, 12000, page_size)), worth=1)
    assert found is not None
    assert spans(found.parts) == [
        ([1, 2, 3, 4, 5, 6], 0, 90),
        ([1, 2, 3, 4, 5], 90, PROMPT - 90),
        ([2, 3], 0, BRANCH),
    ]
    assert found.rest[0] == (0, 0)
    assert found.rest[1] == (0, PROMPT)
    assert found.rest[6] == (1, 0)


def test_a_decoding_step_reads_the_whole_pages_once_that_spare_most() -> None:
    bridge = bridge_of("llama")
    sequences = tree(bridge, pool_of(bridge))
    rows = begin([(sequence, [5]) for sequence in sequences if not sequence.reserve(1)])
    assert group_of(rows, 1) == Group((1, 2, 3, 4, 5), PROMPT // 16)
    assert group_of(numbered(rows[2:4]), 1) == Group((0, 1), -(-PROMPT // 16) + BRANCH // 16)
    assert group_of(rows, 10000) == Group()
    sequences[2].segments[0].shift = 7
    assert group_of(numbered(rows[2:4]), 1) == Group()


def test_what_spares_too_little_is_read_by_each() -> None:
    bridge = bridge_of("llama")
    sequences = tree(bridge, pool_of(bridge))
    found = shared_by(sequences, worth=4 * (PROMPT - 90) + 1)
    assert found is not None
    assert spans(found.parts) == [([1, 2, 3, 4, 5, 6], 0, 90)]
    assert found.rest[1] == (0, 90)
    assert shared_by(sequences, worth=5 * 90 + 1) is None
    assert shared_by(sequences[:2], worth=1) is None


def test_what_spares_little_is_shared_where_more_lies_behind_it() -> None:
    bridge = bridge_of("llama")
    pool = pool_of(bridge)
    first, second = sequence_of(bridge, pool), sequence_of(bridge, pool)
    read(bridge, StridedStep, [(first, tokens(10, 1))])
    first.sealed = True
    read(bridge, StridedStep, [(first, tokens(100, 1))])
    for segment in first.share(110):
        second.add(segment)
    found = shared_by([first, second], worth=100)
    assert found is not None
    assert spans(found.parts) == [([0, 1], 0, 10), ([0, 1], 0, 100)]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("count", [1, 7])
def test_a_step_of_sequences_that_share_equals_the_definition(
    family: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = bridge_of(family)
    sequences = tree(bridge, pool_of(bridge))
    assert shared_by(sequences, 512) is None
    found = []
    for kind, worth in ((PlainStep, None), (StridedStep, 1), (NumbaStep, 1)):
        monkeypatch.setattr("longreach.attention.strided_step.shared_beginnings", _sharing(worth))
        given = [(sequence, tokens(count, at)) for at, sequence in enumerate(sequences)]
        found.append(torch.cat(read(bridge, kind, given)))
        for sequence in sequences:  # the same tokens once more, in the same places
            del sequence.segments[-1].tokens[-count:]
            sequence.segments[-1].entries -= count
            sequence.position -= count
    assert all((found[0] - other).abs().max() < TOLERANCE for other in found[1:])


@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in NOT_RELOCATABLE])
def test_what_stands_elsewhere_is_shared_where_it_is_used(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = bridge_of(family)
    pool = pool_of(bridge)
    first = sequence_of(bridge, pool)
    read(bridge, StridedStep, [(first, tokens(100, 1))])
    found = []
    for kind in (PlainStep, StridedStep, NumbaStep):
        monkeypatch.setattr("longreach.attention.strided_step.shared_beginnings", _sharing(1))
        sequences = followers(bridge, pool, [first] * 3, 100)
        for at, sequence in enumerate(sequences):
            sequence.segments[0].shift = 40 if at < 2 else 41
            sequence.position = sequence.segments[0].end
        read(bridge, kind, [(sequence, tokens(5, at)) for at, sequence in enumerate(sequences)])
        found.append(torch.cat(read(bridge, kind, [(sequence, tokens(1, 9)) for sequence in sequences])))
        if kind is StridedStep:
            shared = shared_by(sequences, 1)
            assert shared is not None
            assert spans(shared.parts) == [([0, 1], 0, 100)]
    assert all((found[0] - other).abs().max() < TOLERANCE for other in found[1:])


def _sharing(worth: int | None) -> Any:
    return lambda rows: None if worth is None else shared_beginnings(rows, worth)
