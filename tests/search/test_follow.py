"""Questions that lean on those before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.search.follow import LONGEST, Asked, followed, leans

FIRST = Asked("Where is the Heron pump built?", "Turku")


@pytest.mark.parametrize(
    "question",
    [
        "And how heavy is it?",
        "What about the Osprey pump?",
        "Who designed it?",
        "When was she born?",
        "Why?",
        "How so?",
        "What is the reason for that?",
        "Do the others turn faster?",
        "How heavy?",
    ],
)
def test_a_question_that_points_back_leans(question: str) -> None:
    assert leans(question)
    assert followed(question, [FIRST]) == f"{FIRST.question} {question}"


@pytest.mark.parametrize(
    "question",
    [
        "How heavy is the Falcon pump?",
        "Are there limits for hotels in Zurich?",
        "Which tool is used that measures torque?",
        "The Falcon pump is loud. What is its gasket made of?",
    ],
)
def test_a_question_that_stands_by_itself_is_left_alone(question: str) -> None:
    assert not leans(question)
    assert followed(question, [FIRST]) == question


def test_what_is_leant_on_is_the_last_that_stood() -> None:
    before = [Asked("Where is the kiln?"), FIRST, Asked("How fast does it turn?"), Asked("And its weight?")]
    assert followed("Why?", before) == f"{FIRST.question} Why?"
    assert followed("Why?", [Asked("How fast does it turn?")]) == "Why?"
    assert followed("Why?", []) == "Why?"


def test_of_a_long_text_before_its_end_is_searched_for() -> None:
    pasted = Asked("Something is told. " * 100 + "Where is the Heron pump built?")
    query = followed("And who designed it?", [pasted])
    assert query.endswith("Where is the Heron pump built? And who designed it?")
    assert len(query) <= LONGEST + len(" And who designed it?")


@given(question=st.text(), before=st.lists(st.text(), max_size=4))
def test_any_question_ends_what_is_searched_for(question: str, before: list[str]) -> None:
    assert followed(question, [Asked(one) for one in before]).endswith(question)
