"""Each change of the logits against a direct definition on lists, and against transformers' processors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longreach.engine.sample.bias import add_bias, forbid
from longreach.engine.sample.inverse import invert
from longreach.engine.sample.logprobs import log_probabilities
from longreach.engine.sample.min_p import keep_min_p
from longreach.engine.sample.penalties import count, mark, penalise_output, penalise_repetition
from longreach.engine.sample.randomness import BLOCK, Uniforms
from longreach.engine.sample.rows import ordered
from longreach.engine.sample.temperature import scale
from longreach.engine.sample.top_k import keep_top_k
from longreach.engine.sample.top_p import keep_top_p
from longreach.engine.sample.typical import keep_typical

INF = float("inf")
VOCAB = 12
# Multiples of a quarter: ties are common, and nothing that differs is so near that rounding decides.
rows = st.lists(st.integers(-20, 20).map(lambda x: x / 4), min_size=VOCAB, max_size=VOCAB)
holes = st.sets(st.integers(0, VOCAB - 1), max_size=VOCAB - 1)
token_lists = st.lists(st.integers(0, VOCAB - 1), max_size=20)
masses = st.floats(0.01, 0.99)


def tensor(values: Sequence[float], holes: set[int] = frozenset()) -> torch.Tensor:  # type: ignore[assignment]
    return torch.tensor([[-INF if at in holes else value for at, value in enumerate(values)]])


def probabilities(logits: torch.Tensor) -> list[float]:
    values = logits[0].double().tolist()
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def kept(logits: torch.Tensor) -> set[int]:
    return {at for at, value in enumerate(logits[0].tolist()) if value > -INF}


def fewest(p: Sequence[float], keys: Sequence[float], mass: float) -> tuple[set[int], bool]:
    """The tokens of the smallest keys, taken until they have `mass`, with all that tie with the last; and whether that
    is so by more than rounding."""
    total, chosen = 0.0, list[int]()
    for at in sorted(range(len(p)), key=lambda at: keys[at]):
        if total >= mass:
            break
        chosen.append(at)
        total += p[at]
    last = max(keys[at] for at in chosen)
    clear = abs(total - mass) > 1e-6 and abs(total - p[chosen[-1]] - mass) > 1e-6
    gaps = [abs(key - last) for key in keys if key != last]
    return {at for at, key in enumerate(keys) if key <= last}, clear and min(gaps, default=1) > 1e-6


@given(rows, holes, st.integers(1, 30))
def test_top_k_keeps_what_fewer_than_k_are_likelier_than(values: list[float], holes: set[int], k: int) -> None:
    logits = tensor(values, holes)
    row = logits[0].tolist()
    want = {at for at, x in enumerate(row) if x > -INF and sum(other > x for other in row) < k}
    got = keep_top_k(logits, [k])
    assert kept(got) == want
    assert all(got[0, at] == logits[0, at] for at in want)


@given(rows, holes, masses)
def test_top_p_keeps_the_fewest_likeliest_that_reach_the_mass(values: list[float], holes: set[int], p: float) -> None:
    logits = tensor(values, holes)
    want, clear = fewest(probabilities(logits), [-x for x in logits[0].tolist()], p)
    if clear:
        assert kept(keep_top_p(logits, [p])) == want


@given(rows, holes, st.floats(0.001, 1))
def test_min_p_keeps_what_is_that_likely_beside_the_likeliest(values: list[float], holes: set[int], p: float) -> None:
    logits = tensor(values, holes)
    chances = probabilities(logits)
    if all(abs(chance - p * max(chances)) > 1e-6 for chance in chances if chance):
        assert kept(keep_min_p(logits, [p])) == {at for at, x in enumerate(chances) if x >= p * max(chances) and x > 0}
    assert max(chances) in [chances[at] for at in kept(keep_min_p(logits, [p]))]


@given(rows, holes, masses)
def test_typical_keeps_the_fewest_about_as_surprising_as_expected(
    values: list[float], holes: set[int], p: float
) -> None:
    logits = tensor(values, holes)
    chances = probabilities(logits)
    surprise = [-math.log(chance) if chance else INF for chance in chances]
    entropy = sum(chance * s for chance, s in zip(chances, surprise, strict=True) if chance)
    want, clear = fewest(chances, [round(abs(s - entropy), 9) if s < INF else INF for s in surprise], p)
    if clear:
        assert kept(keep_typical(logits, [p])) == want


@given(rows, holes, st.floats(0.01, 50))
def test_temperature_divides_what_separates_the_logits(values: list[float], holes: set[int], t: float) -> None:
    logits = tensor(values, holes)
    got = probabilities(scale(logits, [t]))
    want = probabilities(torch.tensor([[x / t for x in logits[0].tolist()]]).double())
    assert got == pytest.approx(want, abs=1e-5)


@given(rows, token_lists, token_lists, st.floats(0.5, 2))
def test_repetition_makes_all_that_was_there_less_likely(
    values: list[float], prompt: list[int], output: list[int], penalty: float
) -> None:
    logits = tensor(values)
    seen = mark(torch.zeros((1, VOCAB), dtype=torch.bool), [prompt + output])
    want = [(x * penalty if x < 0 else x / penalty) if at in {*prompt, *output} else x for at, x in enumerate(values)]
    assert penalise_repetition(logits, seen, [penalty])[0].tolist() == pytest.approx(want)


@given(rows, token_lists, st.floats(-2, 2), st.floats(-2, 2))
def test_frequency_counts_and_presence_does_not(
    values: list[float], output: list[int], frequency: float, presence: float
) -> None:
    logits = tensor(values)
    got = penalise_output(logits, count([output], logits), [frequency], [presence])
    want = [x - frequency * output.count(at) - presence * (at in output) for at, x in enumerate(values)]
    assert got[0].tolist() == pytest.approx(want, abs=1e-5)


@given(rows, st.dictionaries(st.integers(0, VOCAB + 3), st.floats(-100, 100)))
def test_a_bias_is_added_and_what_is_forbidden_is_impossible(values: list[float], bias: dict[int, float]) -> None:
    logits = tensor(values)
    want = [x + bias.get(at, 0.0) for at, x in enumerate(values)]
    assert add_bias(logits, [bias])[0].tolist() == pytest.approx(want, abs=1e-5)
    assert kept(forbid(logits, [list(bias)])) == set(range(VOCAB)) - set(bias)
    assert logits[0].tolist() == values


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=8).filter(any), st.integers(0, 2**53 - 1))
def test_the_inverse_is_the_first_token_whose_running_mass_exceeds_the_number(weights: list[float], draw: int) -> None:
    u = draw * 2.0**-53
    want = next(at for at in range(len(weights)) if sum(weights[: at + 1]) > u * sum(weights))
    assert invert(torch.tensor([weights], dtype=torch.float64), [u]).tolist() == [want]


@given(st.integers(0, 2**63 - 1), st.integers(0, 5), st.integers(0, 3 * BLOCK))
def test_a_random_number_depends_on_seed_sample_and_place_alone(seed: int, sample: int, place: int) -> None:
    words = np.random.Philox(key=seed + (sample << 64)).random_raw(3 * BLOCK + 1)
    uniforms = Uniforms(seed, sample)
    _ = uniforms[7], uniforms[2 * BLOCK]
    assert uniforms[place] == int(words[place]) // 2**11 / 2**53
    assert 0 <= uniforms[place] < 1


@given(st.lists(rows, min_size=1, max_size=4), st.integers(0, 20))
def test_log_probabilities_are_of_the_token_then_of_the_likeliest(values: list[list[float]], most: int) -> None:
    logits = torch.tensor(values)
    tokens = torch.tensor([3] * len(values))
    found, ids = log_probabilities(logits, tokens, most)
    assert found.shape == ids.shape == (len(values), 1 + min(most, VOCAB))
    for row, (row_found, row_ids) in enumerate(zip(found.exp().tolist(), ids.tolist(), strict=True)):
        chances = probabilities(logits[row : row + 1])
        assert row_found == pytest.approx([chances[at] for at in row_ids], abs=1e-5)
        assert row_ids[0] == 3
        assert row_found[1:] == pytest.approx(sorted(chances, reverse=True)[:most], abs=1e-5)


def test_values_are_ordered_as_pytorch_orders_them() -> None:
    logits = torch.randn(3, 100, generator=torch.manual_seed(0))
    logits[1, 4:9] = -INF
    assert torch.equal(ordered(logits), logits.sort(dim=-1, descending=True).values)


Many = Callable[[torch.Tensor, Sequence[float]], torch.Tensor]


@pytest.mark.parametrize("change", [keep_top_k, keep_top_p, keep_min_p, keep_typical, scale], ids=lambda f: f.__name__)
def test_every_row_has_a_value_of_its_own_and_the_given_logits_stay(change: Many) -> None:
    logits = torch.randn(5, 50, generator=torch.manual_seed(1))
    before = logits.clone()
    values = [1, 3, 7, 20, 49] if change is keep_top_k else [0.1, 0.35, 0.5, 0.8, 0.95]
    together = change(logits, values)
    apart = torch.cat([change(logits[row : row + 1], [value]) for row, value in enumerate(values)])
    assert torch.equal(together, apart)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("seed", range(4))
def test_cuts_and_penalties_are_those_of_transformers(seed: int) -> None:
    from transformers.generation import logits_process as theirs

    random = torch.manual_seed(seed)
    logits = torch.randn(6, 1000, generator=random) * 3
    logits[0, :400] = -INF
    ids = torch.randint(0, 1000, (6, 60), generator=random)
    for k in (1, 5, 999, 5000):
        assert torch.equal(keep_top_k(logits, [k] * 6), theirs.TopKLogitsWarper(k)(ids, logits))
    for p in (0.05, 0.3, 0.9, 0.99):
        assert torch.equal(keep_top_p(logits, [p] * 6), theirs.TopPLogitsWarper(p)(ids, logits))
        assert torch.equal(keep_min_p(logits, [p] * 6), theirs.MinPLogitsWarper(p)(ids, logits))
        assert torch.equal(keep_typical(logits, [p] * 6), theirs.TypicalLogitsWarper(p)(ids, logits))
    for penalty in (0.7, 1.3):
        seen = mark(torch.zeros(logits.shape, dtype=torch.bool), ids.tolist())
        want = theirs.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
        assert torch.allclose(penalise_repetition(logits, seen, [penalty] * 6), want)
    for t in (0.3, 2.0):
        want = theirs.TemperatureLogitsWarper(t)(ids, logits).softmax(-1)
        assert torch.allclose(scale(logits, [t] * 6).softmax(-1), want, atol=1e-6)
