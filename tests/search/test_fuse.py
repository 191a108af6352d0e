"""Fusion and diversity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.search.fuse import convex, reciprocal_rank
from longreach.search.mmr import diversified, select

rankings = st.dictionaries(st.integers(0, 20), st.floats(0, 100), max_size=10).map(
    lambda scores: dict(sorted(scores.items(), key=lambda item: -item[1]))
)


def test_reciprocal_rank_adds_shares_of_ranks() -> None:
    fused = reciprocal_rank([["a", "b"], ["b", "c"]], [1.0, 2.0], k=10)
    assert fused == pytest.approx({"b": 1 / 12 + 2 / 11, "c": 2 / 12, "a": 1 / 11})
    assert list(fused) == ["b", "c", "a"]


def test_convex_adds_shares_of_the_best_score() -> None:
    fused = convex([{"a": 4.0, "b": 1.0}, {"b": 0.5, "c": -0.1}], [0.25, 0.75])
    assert fused == pytest.approx({"b": 0.0625 + 0.75, "a": 0.25, "c": 0.0})
    assert list(fused) == ["b", "a", "c"]


@given(rankings, rankings)
def test_with_all_weight_on_one_ranking_its_order_stands(one: dict[int, float], other: dict[int, float]) -> None:
    for fused in (convex([one, other], [1.0, 0.0]), reciprocal_rank([list(one), list(other)], [1.0, 0.0])):
        assert fused.keys() == one.keys() | other.keys()
        assert [one[key] for key in fused if key in one] == list(one.values())


def test_without_diversity_relevance_decides() -> None:
    vectors = np.eye(4, dtype=np.float32)
    assert select(np.array([0.1, 0.9, 0.5, 0.7], np.float32), vectors, 3, 0.0) == [1, 3, 2]


def test_with_diversity_a_double_comes_last() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert select(np.array([1.0, 0.9, 0.2], np.float32), vectors, 3, 0.5) == [0, 2, 1]


@given(st.integers(0, 8), st.integers(0, 10), st.floats(0, 1))
def test_every_row_is_chosen_once(rows: int, k: int, diversity: float) -> None:
    vectors = np.eye(max(rows, 1), 3, dtype=np.float32)
    chosen = select(np.linspace(1, 0, rows, dtype=np.float32), vectors[:rows], k, diversity)
    assert len(chosen) == len(set(chosen)) == min(k, rows)


def test_vectors_are_read_only_where_diversity_is_asked_for() -> None:
    assert diversified({5: 1.0, 3: 0.5}, lambda rows: pytest.fail("read"), 1, 0.0) == [5]
