"""Fidelity, efficiency and compression equal their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.errors import InputError
from longreach.evaluate.metrics.compression import bits_per_character, information_capacity
from longreach.evaluate.metrics.efficiency import Cost, goodput, idealize, peak_kv_bytes
from longreach.evaluate.metrics.fidelity import fidelity

seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(seeds)
def test_a_run_is_faithful_to_itself_and_to_shifted_logits(seed):
    logits = np.random.default_rng(seed).normal(size=(5, 11)) * 8
    same = fidelity(logits, logits + 3.0)
    assert (same.top1, same.tokens) == (1.0, 5)
    assert same.kl == pytest.approx(0.0, abs=1e-12)


@settings(deadline=None)
@given(seeds)
def test_kl_equals_the_sum_over_the_vocabulary(seed):
    random = np.random.default_rng(seed)
    one, other = random.normal(size=(2, 3, 7))
    slow = []
    for a, b in zip(one, other, strict=True):
        p, q = (np.exp(row) / np.exp(row).sum() for row in (a, b))
        slow.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
    found = fidelity(one, other)
    assert found.kl == pytest.approx(np.mean(slow))
    assert found.kl_most == pytest.approx(max(slow))
    assert found.top1 == np.mean([np.argmax(a) == np.argmax(b) for a, b in zip(one, other, strict=True)])


def test_what_the_exact_run_rules_out_costs_nothing():
    assert fidelity([[0.0, -np.inf]], [[0.0, 0.0]]).kl == pytest.approx(math.log(2))
    with pytest.raises(InputError, match="one shape"):
        fidelity([[0.0]], [[0.0, 1.0]])


def test_costs_tell_the_time_of_a_token():
    cost = Cost(ttft=1.0, total=3.0, prompt_tokens=10, generated_tokens=5)
    assert cost.per_token == 0.5
    assert cost.tokens_per_second == pytest.approx(5 / 3)
    assert Cost(1.0, 1.0, 10, 1).per_token is None


def test_goodput_counts_the_answers_that_kept_both_promises():
    costs = [Cost(0.1, 1.1, 9, 11), Cost(0.9, 1.9, 9, 11), Cost(0.1, 9.1, 9, 10)]
    assert goodput(costs, 2.0, ttft=0.5, per_token=0.2) == 0.5
    assert goodput(costs, 2.0, ttft=1.0, per_token=2.0) == 1.5
    with pytest.raises(InputError):
        goodput(costs, 0.0, ttft=1.0, per_token=1.0)


def test_bytes_are_those_of_the_most():
    assert peak_kv_bytes([Cost(1, 1, 1, 1, kv_bytes=5), Cost(1, 1, 1, 1, kv_bytes=3)]) == 5


def test_the_idealized_runtime_is_what_contention_adds_to():
    measured = [Cost(0.2 + wait, 0.2 + wait + 0.9, 100, 10) for wait in (0.0, 3.0)] + [Cost(0.4, 1.3, 200, 10)]
    runtime = idealize([*measured, Cost(0.01, 0.91, 150, 10, reused_tokens=149)])
    assert runtime.seconds(100, 10) == pytest.approx(1.1)
    assert runtime.seconds(150, 1) == pytest.approx(0.3)
    assert runtime.seconds(400, 1) == pytest.approx(0.8)
    with pytest.raises(InputError):
        idealize([Cost(0.1, 0.1, 10, 1)])


def test_a_model_that_guesses_evenly_needs_the_logarithm_of_its_vocabulary():
    evenly = [-math.log(256)] * 10
    assert bits_per_character(evenly, 10) == pytest.approx(8.0)
    assert information_capacity(evenly, 10, 2**30, bias=0.0) == pytest.approx(0.0)
    assert information_capacity([-math.log(2)] * 10, 40, 2**31, bias=-27.0) == pytest.approx((32 - 1 - 27) / 31)
    with pytest.raises(InputError):
        bits_per_character([], 0)
    with pytest.raises(InputError):
        information_capacity([], 10, 2**30)
