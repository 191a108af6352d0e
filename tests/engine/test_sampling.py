from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longreach.engine import Sampling
from longreach.engine.sampling import choose, nucleus, randomness
from longreach.errors import ModelError


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=12), st.floats(0.01, 1))
def test_the_nucleus_is_the_fewest_likeliest_that_reach_the_mass(weights: list[float], top_p: float) -> None:
    p = torch.tensor(weights, dtype=torch.float64)
    p = p / p.sum()
    kept = nucleus(p, top_p)
    inside = kept > 0
    assert torch.equal(kept[inside], p[inside])
    assert kept.sum() >= top_p - 1e-9
    assert kept.sum() - kept[inside].min() < top_p
    if (~inside).any():
        assert p[~inside].max() <= p[inside].min()


def test_a_tiny_nucleus_or_temperature_is_greedy() -> None:
    logits = torch.tensor([0.1, 2.0, 1.9, -1.0])
    for sampling in (Sampling(temperature=1.0, top_p=0.01), Sampling(temperature=1e-6), Sampling()):
        assert {choose(logits, sampling, randomness(sampling)) for _ in range(20)} == {1}


def test_tokens_come_as_often_as_their_probability_says() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25]).log() * 2
    sampling = Sampling(temperature=2.0, seed=1)
    random = randomness(sampling)
    counts = torch.bincount(torch.tensor([choose(logits, sampling, random) for _ in range(4000)]), minlength=3) / 4000
    assert torch.allclose(counts, torch.tensor([0.5, 0.25, 0.25]), atol=0.04)


def test_an_impossible_token_is_fine_and_never_chosen() -> None:
    sampling = Sampling(temperature=1.0, seed=2)
    random = randomness(sampling)
    assert {choose(torch.tensor([0.0, float("-inf")]), sampling, random) for _ in range(50)} == {0}


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(wrong: float) -> None:
    with pytest.raises(ModelError, match="not numbers"):
        choose(torch.tensor([0.0, wrong, 1.0]), Sampling(), randomness(Sampling()))
