"""Relevance: what is not about the question is not read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.context.relevance import UNKNOWN_SIMILARITY, relevant, similarities
from longreach.types import Chunk, DocumentInfo, Hit

QUESTION = "What is the torque limit of the pump?"
TELLS = "The pump's torque limit is 25 Nm."
OTHER = "Lake Baikal is the deepest lake of the world."


def hit(text: str, cosine: float | None) -> Hit:
    scores = {} if cosine is None else {"dense": cosine}
    return Hit(Chunk("c", "d", 0, len(text), text, 0), DocumentInfo("d", "", {}, "", 0, 1, ""), 1.0, scores)


@pytest.mark.parametrize(
    ("text", "cosine", "read"),
    [(TELLS, 0.1, True), (TELLS, -0.5, False), (OTHER, 0.3, False), (OTHER, 0.8, True)],
)
def test_words_make_up_for_meaning_and_meaning_for_words(text: str, cosine: float, read: bool) -> None:
    assert bool(relevant(QUESTION, [hit(text, cosine)], 0.4)) is read


def test_a_question_of_function_words_alone_is_judged_by_its_meaning() -> None:
    assert relevant("What is this?", [hit(OTHER, 0.1)], 0.4)
    assert not relevant("What is this?", [hit(OTHER, -0.1)], 0.4)


def test_hits_whose_similarity_is_not_told_are_as_similar_as_the_least_that_is() -> None:
    assert similarities([hit(TELLS, 0.7), hit(OTHER, None), hit(OTHER, 0.3)]) == [0.7, 0.3, 0.3]
    assert similarities([hit(TELLS, None)]) == [UNKNOWN_SIMILARITY]


@given(st.lists(st.tuples(st.sampled_from([TELLS, OTHER]), st.floats(-1, 1)), max_size=8), st.floats(-1, 1))
def test_what_is_relevant_keeps_its_order_and_shrinks_as_the_least_rises(
    drawn: list[tuple[str, float]], least: float
) -> None:
    hits = [hit(text, cosine) for text, cosine in drawn]
    kept = relevant(QUESTION, hits, least)
    assert [id(one) for one in kept] == [id(one) for one in hits if one in kept]
    assert all(one in kept for one in relevant(QUESTION, hits, least + 0.1))
    assert relevant(QUESTION, hits, -1) == hits
