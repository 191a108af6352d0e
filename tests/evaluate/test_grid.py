"""Grids are read as they are written."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.errors import InputError
from longreach.evaluate.grid import STEPS, expand, parse_grid, split

AXES = ("policy", "k", "chunk", "chooser")


def test_a_grid_is_every_combination_and_the_last_axis_changes_quickest() -> None:
    grid = parse_grid("policy=full,snapkv(budget=0.1..1.0, window=32); k=4..32", AXES)
    points = grid.points()
    assert len(points) == (1 + STEPS) * 4
    assert points[:5] == [
        {"policy": "full", "k": "4"},
        {"policy": "full", "k": "8"},
        {"policy": "full", "k": "16"},
        {"policy": "full", "k": "32"},
        {"policy": "snapkv(budget=0.1, window=32)", "k": "4"},
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4..32", ["4", "8", "16", "32"]),
        ("4..20", ["4", "8", "16", "20"]),
        ("0.1..1.0", ["0.1", "0.325", "0.55", "0.775", "1"]),
        ("0..10/3", ["0", "5", "10"]),
        ("f(a=1..2, b=3..4)", ["f(a=1, b=3)", "f(a=1, b=4)", "f(a=2, b=3)", "f(a=2, b=4)"]),
        ("file..name", ["file..name"]),
        ("a1..2b", ["a1..2b"]),
        ("plain", ["plain"]),
    ],
)
def test_a_range_stands_for_its_values(text: str, values: list[str]) -> None:
    assert expand(text) == values


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_range_of_whole_numbers_begins_and_ends_where_it_says(low: int, more: int) -> None:
    values = [int(value) for value in expand(f"{low}..{low + more}")]
    assert (values[0], values[-1]) == (low, low + more)
    assert values == sorted(set(values))
    assert all(later <= 2 * earlier for earlier, later in pairwise(values))


def test_marks_in_brackets_and_quotes_part_nothing() -> None:
    assert split("a(b=1, c=[2, 3]), 'd,e', f", ",") == ["a(b=1, c=[2, 3])", "'d,e'", "f"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("k", "cannot read 'k'"),
        ("k=", "cannot read 'k='"),
        ("depth=3", "no axis 'depth'; known: policy, k, chunk, chooser"),
        ("k=4; k=8", "names 'k' twice"),
        ("k=8..4", "no range"),
        ("k=0..4", "cannot be doubled"),
        ("policy=snapkv(budget=0.5", "not closed"),
    ],
)
def test_a_wrong_grid_gets_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        parse_grid(text, AXES)
