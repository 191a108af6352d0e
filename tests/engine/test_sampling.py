from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.engine import Sampling
from longreach.engine.sampling import Draw, Source, adjust, distribution, draw, sample

INF = float("inf")
VOCAB = 40
# One of every kind that a batch may hold.
KINDS: list[dict[str, Any]] = [
    {},
    {"logprobs": 3},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8, "logprobs": 0},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.0, "typical_p": 0.6},
    {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.9, "logprobs": 20},
    {"repetition_penalty": 1.5},
    {"temperature": 1.0, "repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": -0.3},
    {"logit_bias": {3: 100.0, 5: -100.0}},
    {"temperature": 1.0, "logit_bias": {1: 2.0}, "min_tokens": 9},
]
kinds = st.sampled_from(KINDS)
outputs = st.lists(st.integers(0, VOCAB - 1), max_size=12)
rows = st.tuples(kinds, outputs, st.integers(0, 2**63 - 1), st.integers(0, 10_000))
Row = tuple[dict[str, Any], list[int], int, int]


def logits_of(seeds: list[int]) -> torch.Tensor:
    return torch.stack([torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 3 for seed in seeds])


def draw_of(row: Row) -> Draw:
    options, output, seed, _ = row
    return Draw(Source(Sampling(seed=seed, **options), [1, 2, 3, 3], frozenset({7, 9})), output)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8))
def test_a_row_is_the_same_alone_and_in_any_batch(batch: list[Row]) -> None:
    logits = logits_of([row[3] for row in batch])
    before = logits.clone()
    together = sample(logits, [draw_of(row) for row in batch])
    assert torch.equal(logits, before)
    for at, row in enumerate(batch):
        alone = sample(logits[at : at + 1], [draw_of(row)])
        assert together.tokens[at] == alone.tokens[0]
        ours, theirs = together.logprobs[at], alone.logprobs[0]
        assert (ours is None) == (theirs is None) == (row[0].get("logprobs") is None)
        if ours and theirs:
            assert [x.token_id for x in ours.likeliest] == [x.token_id for x in theirs.likeliest]
            assert [x.logprob for x in ours.likeliest] == pytest.approx([x.logprob for x in theirs.likeliest])


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=6))
def test_greedy_rows_take_the_likeliest_after_the_adjustments(batch: list[Row]) -> None:
    batch = [({**row[0], "temperature": 0.0}, *row[1:]) for row in batch]
    logits = logits_of([row[3] for row in batch])
    draws = [draw_of(row) for row in batch]
    assert sample(logits, draws).tokens == adjust(logits, draws).argmax(-1).tolist()


@pytest.mark.parametrize("options", [kind for kind in KINDS if kind.get("temperature")], ids=str)
def test_tokens_come_as_often_as_the_distribution_says(options: dict[str, Any]) -> None:
    logits = logits_of([5])
    n = 2000
    draws = [draw_of((options, [4, 4, 6], seed, 5)) for seed in range(n)]
    tokens = torch.tensor(sample(logits.expand(n, -1), draws).tokens)
    p = distribution(logits, draws[:1])[0]
    counts = torch.bincount(tokens, minlength=VOCAB)
    assert counts[p == 0].sum() == 0
    # Rare tokens are taken together, so that the statistic follows its distribution.
    common = p * n >= 5
    want = torch.cat([p[common], p[~common].sum()[None]]) * n
    got = torch.cat([counts[common], counts[~common].sum()[None]])
    known = want > 1e-9
    chi_square = ((got - want)[known] ** 2 / want[known]).sum().item()
    degrees = int(known.sum()) - 1
    assert chi_square <= degrees + 4 * math.sqrt(2 * degrees) + 4  # about one in ten thousand lies beyond


def test_the_tokens_of_one_answer_come_as_often_as_the_distribution_says() -> None:
    source = Source(Sampling(temperature=2.0, seed=1))
    logits = (torch.tensor([[0.5, 0.25, 0.25]]).log() * 2).expand(4000, -1)
    tokens = sample(logits, [Draw(source, [0] * place) for place in range(4000)]).tokens
    frequencies = torch.bincount(torch.tensor(tokens), minlength=3) / 4000
    assert torch.allclose(frequencies, torch.tensor([0.5, 0.25, 0.25]), atol=0.03)


def test_samples_of_one_seed_differ_and_without_a_seed_nothing_repeats() -> None:
    def write(seed: int | None, number: int) -> list[int | None]:
        source = Source(Sampling(temperature=1.0, seed=seed), sample=number)
        return list(sample(torch.zeros(20, VOCAB), [Draw(source, [0] * place) for place in range(20)]).tokens)

    assert write(7, 0) == write(7, 0)
    assert len({tuple(write(7, number)) for number in range(4)}) == 4
    assert write(None, 0) != write(None, 0)


def test_a_row_without_numbers_fails_alone() -> None:
    logits = torch.zeros(6, 3)
    logits[0, 1], logits[1, 1], logits[2, 1] = float("nan"), INF, -INF
    logits[3] = -INF
    for options in ({}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 2, "top_p": 0.5, "logprobs": 2}):
        sampled = sample(logits, [Draw(Source(Sampling(**options))) for _ in range(6)])
        assert [token is None for token in sampled.tokens] == [True, True, False, True, False, False]
        assert [found is None for found in sampled.logprobs] == [
            token is None or "logprobs" not in options for token in sampled.tokens
        ]
        assert sampled.tokens[2] != 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_may_be_chosen_the_row_fails(temperature: float) -> None:
    source = Source(Sampling(min_tokens=1, temperature=temperature), ends=frozenset({1}))
    assert sample(torch.tensor([[-INF, 0.0]]), [Draw(source)]).tokens == [None]
    assert sample(torch.tensor([[-INF, 0.0]]), [Draw(source, [0])]).tokens == [1]


def test_a_tiny_nucleus_or_temperature_is_greedy() -> None:
    logits = torch.tensor([[0.1, 2.0, 1.9, -1.0]]).expand(50, -1)
    for options in ({"top_p": 0.01}, {"top_k": 1}, {"min_p": 1.0}, {"temperature": 1e-4}, {"temperature": 1e-300}):
        source = Source(Sampling(**{"temperature": 1.0, "seed": 3, **options}))
        assert set(sample(logits, [Draw(source, [0] * place) for place in range(50)]).tokens) == {1}


def test_an_answer_may_end_once_it_has_its_least_tokens() -> None:
    source = Source(Sampling(min_tokens=2), ends=frozenset({0}))
    logits = torch.tensor([[5.0, 1.0]]).expand(3, -1)
    assert sample(logits, [Draw(source, [1] * place) for place in range(3)]).tokens == [1, 1, 0]


def test_repetition_looks_at_prompt_and_output_and_the_other_penalties_at_the_output() -> None:
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0]])
    both = Source(Sampling(repetition_penalty=2.0), [0])
    assert adjust(logits, [Draw(both, [1])]).tolist() == [[1.0, 1.0, 2.0, 2.0]]
    output = Source(Sampling(frequency_penalty=0.5, presence_penalty=0.25), [0])
    assert adjust(logits, [Draw(output, [1, 2, 2])]).tolist() == [[2.0, 1.25, 0.75, 2.0]]


def test_tokens_beyond_the_vocabulary_of_the_logits_do_not_matter() -> None:
    source = Source(Sampling(repetition_penalty=2.0, presence_penalty=1.0, min_tokens=4), [9], frozenset({8}))
    assert adjust(torch.tensor([[2.0, 4.0]]), [Draw(source, [7])]).tolist() == [[2.0, 4.0]]


def test_logprobs_are_the_models_own_whatever_is_changed_or_cut() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    own = logits.log_softmax(-1)[0].tolist()
    sampling = Sampling(temperature=0.1, top_k=1, logit_bias={0: 100.0}, logprobs=2)
    (found,) = sample(logits, [Draw(Source(sampling))]).logprobs
    assert found is not None
    assert (found.chosen.token_id, found.chosen.logprob) == (0, pytest.approx(own[0]))
    assert [(x.token_id, x.logprob) for x in found.likeliest] == [
        (2, pytest.approx(own[2])),
        (1, pytest.approx(own[1])),
    ]


def test_a_small_vocabulary_has_fewer_likeliest_tokens_than_were_asked_for() -> None:
    draws = [Draw(Source(Sampling(logprobs=most))) for most in (20, 1, 20)]
    found = sample(torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]]), draws).logprobs
    assert [[x.token_id for x in row.likeliest] for row in found if row] == [[1, 0], [0], [0, 1]]


def test_half_precision_is_drawn_as_its_float32() -> None:
    logits = logits_of([1, 2]).bfloat16()
    draws = [draw_of((KINDS[7], [1], seed, 0)) for seed in range(2)]
    assert sample(logits, draws).tokens == sample(logits.float(), draws).tokens


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_nothing_waits_and_the_tokens_are_those_of_the_cpu() -> None:
    batch: list[Row] = [(kind, [1, 4, 4], seed, seed) for seed, kind in enumerate(KINDS * 4)]
    logits = logits_of([row[3] for row in batch])
    draws = [draw_of(row) for row in batch]
    there = logits.cuda()
    draw(there, draws).read()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = draw(there, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert drawn.read().tokens == sample(logits, [draw_of(row) for row in batch]).tokens
