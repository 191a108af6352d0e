"""Which tokens of stored chunks are computed again: limits that every method keeps, and what each is about."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.errors import InputError, SpecError
from longreach.kv.reuse import Question, StoredTokens, reuses
from longreach.kv.reuse.gaze import unsteadiness

SHARED = ("epic", "cacheblend", "cache_craft", "gaze")
UNSHARED = ("full_prefill", "naive", "ape")
LAYERS = 6


def stored(sizes: list[int], seed: int = 0) -> StoredTokens:
    drawn = torch.Generator().manual_seed(seed)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    tokens = ends[-1]
    return StoredTokens(
        [(end - size, end) for end, size in zip(ends, sizes, strict=True)],
        LAYERS,
        question=Question(torch.rand(LAYERS, 3, 4, tokens, generator=drawn).softmax(-1)),
        unsteady=torch.rand(tokens, generator=drawn),
        outward=torch.rand(tokens, generator=drawn),
    )


def computed(method: Any, known: StoredTokens, seed: int = 0) -> torch.Tensor:
    """Through how many layers each token is computed again, `narrow` asked as the engine asks it."""
    drawn = torch.Generator().manual_seed(seed)
    wanted, through = method.depths(known), torch.zeros(known.tokens, dtype=torch.long)
    on = torch.arange(known.tokens)
    for layer in range(known.layers):
        on = on[wanted[on] > layer]
        fresh, kept = torch.randn(2, 2, 2, len(on), 4, generator=drawn)
        go = method.narrow(layer, known.tokens, fresh, kept)
        on = on if go is None else on[go]
        through[on] += 1
    return through


def test_every_method_is_in_the_matrix() -> None:
    assert set(reuses.names()) >= {*SHARED, *UNSHARED}


@pytest.mark.parametrize("name", SHARED)
def test_a_share_of_everything_is_the_full_prefill(name: str) -> None:
    known = stored([5, 9, 1])
    assert computed(reuses.make(f"{name}(share=1.0)"), known).tolist() == [LAYERS] * 15
    assert computed(reuses.make("full_prefill"), known).tolist() == [LAYERS] * 15


@pytest.mark.parametrize("spec", [*(f"{name}(share=0.0)" for name in SHARED), "naive", "ape"])
def test_a_share_of_nothing_computes_nothing(spec: str) -> None:
    assert computed(reuses.make(spec), stored([5, 9, 1])).tolist() == [0] * 15


@pytest.mark.parametrize("name", SHARED)
@settings(deadline=None, max_examples=40)
@given(
    share=st.floats(0, 1), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9), seed=st.integers(0, 2**31 - 1)
)
def test_the_last_layer_computes_the_share_and_nobody_comes_back(
    name: str, share: float, sizes: list[int], seed: int
) -> None:
    known = stored(sizes, seed)
    through = computed(reuses.make(f"{name}(share={share})"), known, seed)
    rounding = 0.5 * len(sizes) if name in ("epic", "cache_craft") else 0.5
    assert abs(int((through == LAYERS).sum()) - share * known.tokens) <= rounding + 1e-3


def test_epic_computes_the_beginning_of_each_chunk() -> None:
    depths = reuses.make("epic(share=0.5)").depths(stored([4, 2]))
    assert depths.tolist() == [LAYERS, LAYERS, 0, 0, LAYERS, 0]


def test_cacheblend_goes_on_with_what_deviates_most_and_narrows_as_it_goes() -> None:
    method: Any = reuses.make("cacheblend(share=0.25, widen=2.0, settle=2)")
    kept = torch.zeros(2, 1, 8, 4)
    fresh = kept.clone()
    fresh[1, 0, :, 0] = torch.tensor([0.0, 5, 1, 9, 2, 8, 0, 0])
    assert method.narrow(0, 8, fresh, kept) is None
    assert method.narrow(1, 8, fresh, kept).nonzero().flatten().tolist() == [1, 3, 4, 5]
    assert method.narrow(2, 8, fresh[:, :, [1, 3, 4, 5]], kept[:, :, :4]).tolist() == [False, True, False, True]
    assert method.narrow(3, 8, fresh[:, :, [3, 5]], kept[:, :, :2]) is None


def test_cache_craft_gives_chunks_that_look_outside_more() -> None:
    outward = torch.tensor([0.0] * 10 + [0.9] * 10)
    outward[3] = 0.05
    known = StoredTokens([(0, 10), (10, 20)], LAYERS, outward=outward)
    depths = reuses.make("cache_craft(share=0.5)").depths(known)
    assert int((depths[10:] > 0).sum()) > int((depths[:10] > 0).sum()) > 0
    assert depths[3] == LAYERS


def test_cache_craft_computes_everything_where_it_is_told_to() -> None:
    known = StoredTokens([(0, 10), (10, 20)], LAYERS, outward=torch.tensor([0.0] * 10 + [0.9] * 10))
    assert reuses.make("cache_craft(share=1.0)").depths(known).tolist() == [LAYERS] * 20


def test_gaze_weighs_what_the_question_looks_at_by_how_unsteady_it_is() -> None:
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1]).expand(LAYERS, 3, 2, 4)
    known = StoredTokens([(0, 4)], LAYERS, question=Question(weights), unsteady=torch.tensor([0.1, 1.0, 0.1, 1.0]))
    assert reuses.make("gaze(share=0.5)").depths(known).tolist() == [0, LAYERS, 0, LAYERS]


def test_gaze_goes_by_what_the_question_looks_at_where_nothing_else_was_noted() -> None:
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1]).expand(LAYERS, 3, 2, 4)
    known = StoredTokens([(0, 4)], LAYERS, question=Question(weights))
    assert reuses.make("gaze(share=0.5)").depths(known).tolist() == [LAYERS, LAYERS, 0, 0]


@pytest.mark.parametrize(("name", "missing"), [("gaze", "question"), ("cache_craft", "noted")])
def test_what_was_not_noted_cannot_be_used(name: str, missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        reuses.make(name).depths(StoredTokens([(0, 4)], LAYERS))


def test_what_does_not_change_is_steady() -> None:
    far = torch.randn(LAYERS, 2, 5, 4)
    near = far.clone()
    near[:, :, 2] *= 1.5
    told = unsteadiness(near, far)
    assert told[2] > 0
    assert told[[0, 1, 3, 4]].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "spec",
    ["epic(share=1.5)", "gaze(share=-0.1)", "cacheblend(widen=0.5)", "ape(scale=0)", "naive(lead='somewhere')"],
)
def test_options_that_are_none_are_refused(spec: str) -> None:
    with pytest.raises(SpecError):
        reuses.make(spec)
