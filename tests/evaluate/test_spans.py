"""Span metrics equal counting characters one by one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.evaluate.metrics.spans import SpanScores, merge, precision_omega, score_spans

bounds = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair)))
many = st.lists(bounds, max_size=6)


def characters(ranges: list[tuple[int, int]]) -> set[int]:
    return {at for start, end in ranges for at in range(start, end)}


@given(many, many)
def test_scores_equal_counting_characters(retrieved, relevant):
    found = len(characters(retrieved) & characters(relevant))
    cost = sum(end - start for start, end in retrieved)
    wanted = len(characters(relevant))
    scores = score_spans(retrieved, relevant)
    assert scores.precision == (found / cost if cost else 0)
    assert scores.recall == (found / wanted if wanted else 0)
    assert scores.iou == (found / (cost + wanted - found) if cost + wanted else 0)


@given(many)
def test_merged_ranges_are_disjoint_and_hold_the_same_characters(ranges):
    merged = merge(ranges)
    assert characters(merged) == characters(ranges)
    assert all(one[1] < other[0] for one, other in pairwise(merged))


@given(many.map(merge).filter(bool))
def test_the_spans_themselves_score_one(ranges):
    assert score_spans(ranges, ranges) == SpanScores(1.0, 1.0, 1.0)


def test_what_is_retrieved_twice_costs_twice_and_counts_once():
    assert score_spans([(0, 10), (0, 10)], [(0, 10)]) == SpanScores(iou=0.5, precision=0.5, recall=1.0)


def test_precision_omega_takes_every_chunk_that_touches_a_span():
    chunks = [(0, 10), (10, 20), (20, 30)]
    assert precision_omega(chunks, [(8, 12)]) == pytest.approx(4 / 20)
    assert precision_omega(chunks, [(10, 20)]) == 1.0
    assert precision_omega(chunks, [(40, 50)]) == 0.0
