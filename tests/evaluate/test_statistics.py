"""Intervals hold their mean, paired comparisons tell what they should, and Holm's correction is Holm's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.errors import InputError
from longreach.evaluate.statistics import compare, estimate, holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_holds_its_mean_and_stays_among_the_values(values):
    found = estimate(values, resamples=200)
    assert found.mean == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= max(values) + 1e-9
    assert found == estimate(values, resamples=200)


def test_an_interval_is_about_two_standard_errors_to_each_side_and_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    held, widths = 0, []
    for _ in range(60):
        values = random.normal(0.5, 0.1, size=50)
        found = estimate(values.tolist(), resamples=500)
        held += found.low <= 0.5 <= found.high
        widths.append(found.high - found.low)
    assert held >= 50
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.1 / 50**0.5, rel=0.1)


def test_values_that_are_alike_and_values_that_are_missing():
    assert (estimate([0.5, 0.5]).low, estimate([0.5, 0.5]).high) == (0.5, 0.5)
    with pytest.raises(InputError):
        estimate([])


def test_runs_are_compared_by_the_examples_that_both_have():
    found = compare({"a": 0.0, "b": 0.0, "c": 1.0}, {"b": 1.0, "c": 1.0, "d": 0.0})
    assert (found.first, found.second, found.difference.mean, found.n) == (0.5, 1.0, 0.5, 2)
    with pytest.raises(InputError, match="in common"):
        compare({"a": 1.0}, {"b": 1.0})


def test_p_is_the_share_of_signs_that_do_as_much():
    better = compare({str(at): 0.0 for at in range(6)}, {str(at): 1.0 for at in range(6)})
    assert better.p == pytest.approx(2 / 2**6)
    assert compare({"a": 0.5, "b": 0.1}, {"a": 0.5, "b": 0.1}).p == 1.0


def test_many_examples_tell_small_differences():
    random = np.random.default_rng(0)
    first = {str(at): value for at, value in enumerate(random.normal(0.5, 0.2, 200))}
    second = {key: value + random.normal(0.03, 0.1) for key, value in first.items()}
    found = compare(first, second)
    assert found.p < 0.01
    assert found.difference.low > 0


def test_holm_corrects_as_in_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(p_values)
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(given_values):
    corrected = holm(given_values)
    for raw, new in zip(given_values, corrected, strict=True):
        assert raw <= new <= min(1.0, raw * len(given_values))
    assert [new for _, new in sorted(zip(given_values, corrected, strict=True))] == sorted(corrected)
