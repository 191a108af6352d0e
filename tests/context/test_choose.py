"""Choosers and orders: every registered one keeps its family's contract."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.context.choose import choosers
from longreach.context.choose.sage import Sage
from longreach.context.fit import FRAME_TOKENS
from longreach.context.order import orders
from longreach.types import Budget, Chunk, DocumentInfo, Hit


def words(text: str) -> int:
    return len(text.split())


def hit(number: int, text: str, score: float, start: int = 0, document: str | None = None) -> Hit:
    document = document or f"d{number}"
    chunk = Chunk(f"c{number}", document, start, start + len(text), text, words(text))
    return Hit(chunk, DocumentInfo(document, "", {}, "text/plain", len(text), 1, ""), score)


ranked = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 60)), max_size=12).map(
    lambda drawn: [hit(n, "word " * size, score) for n, (score, size) in enumerate(sorted(drawn, reverse=True))]
)


@pytest.mark.parametrize("name", choosers.names())
@given(hits=ranked, tokens=st.integers(FRAME_TOKENS + 1, 300))
def test_what_is_chosen_is_ranked_unrepeated_and_within_the_budget(name: str, hits: list[Hit], tokens: int) -> None:
    chosen = choosers.make(name).choose("question", hits, Budget(tokens, words))
    assert sum(words(hit.text) + FRAME_TOKENS for hit in chosen) <= tokens
    assert len({hit.chunk.id for hit in chosen}) == len(chosen)
    places = [next(n for n, hit in enumerate(hits) if hit.chunk.id == taken.chunk.id) for taken in chosen]
    assert places == sorted(places)
    assert bool(chosen) == bool(hits)


@pytest.mark.parametrize("name", choosers.names())
def test_a_best_hit_too_large_is_cut_exactly(name: str) -> None:
    (chosen,) = choosers.make(name).choose("question", [hit(0, "one two three four", 1.0, start=7)], Budget(10, words))
    assert chosen.text == "one two"
    assert (chosen.chunk.start, chosen.chunk.end) == (7, 14)


def test_a_hit_that_overlaps_a_better_one_is_left_out() -> None:
    better, same, other = hit(0, "a b c d", 2.0, 0, "d"), hit(1, "b c d e", 1.0, 2, "d"), hit(2, "b c d e", 0.5, 2, "e")
    chosen = choosers.make("top_k").choose("question", [better, same, other], Budget(1000, words))
    assert [hit.chunk.id for hit in chosen] == ["c0", "c2"]


@pytest.mark.parametrize(
    ("scores", "taken"),
    [([9, 8.8, 2, 1.9, 1.8, 1], 2), ([9, 8.9, 8.8, 8.7, 1, 0.9], 4), ([5, 1, 0.9, 0.8], 2), ([3.0], 1), ([], 0)],
)
def test_sage_stops_where_the_score_falls(scores: list[float], taken: int) -> None:
    assert Sage(min_k=2, max_k=6, fall=0.5).take(scores) == taken


@given(st.lists(st.floats(0, 100), max_size=12).map(lambda drawn: sorted(drawn, reverse=True)))
def test_sage_with_a_fall_that_cannot_happen_takes_all(scores: list[float]) -> None:
    distinct = [score + len(scores) - n for n, score in enumerate(scores)]
    assert Sage(min_k=1, max_k=100, fall=1.5).take(distinct) == len(scores)


@pytest.mark.parametrize("name", orders.names())
@given(passages=st.lists(st.integers(), unique=True, max_size=20))
def test_an_order_is_a_permutation(name: str, passages: list[int]) -> None:
    assert sorted(orders.make(name).order(passages)) == sorted(passages)


def test_ends_puts_the_best_beside_the_question_and_the_weakest_in_the_middle() -> None:
    assert orders.make("ends").order([1, 2, 3, 4, 5]) == [2, 4, 5, 3, 1]
    assert orders.make("ends").order([1, 2]) == orders.make("best_last").order([1, 2]) == [2, 1]
