"""Answer metrics equal SQuAD's numbers, and hold what each of them says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.evaluate.metrics.answers import (
    ANSWER_METRICS,
    all_answers,
    any_answer,
    choice,
    contained,
    exact_match,
    f1,
    keyword_recall,
    numbered,
    plain,
    reference_recall,
)
from longreach.evaluate.metrics.citations import CitationScores, score_citations, score_quotes
from longreach.evaluate.metrics.faithfulness import k_precision

word = st.sampled_from(["the", "a", "An", "cat", "Cat.", "sat", "on", "mat", "it's", "42", "1,000", "ÜBER", "-", "  "])
text = st.lists(word, max_size=8).map(" ".join)


@pytest.mark.thorough
@settings(deadline=None)
@given(text, st.lists(text, min_size=1, max_size=3))
def test_exact_match_and_f1_equal_squads_own(said, references):
    from torchmetrics.functional.text import squad

    target = {"answers": {"answer_start": [0] * len(references), "text": references}, "id": "1"}
    theirs = squad([{"prediction_text": said, "id": "1"}], [target])
    assert 100 * exact_match(said, references) == theirs["exact_match"].item()
    assert 100 * f1(said, references) == pytest.approx(theirs["f1"].item(), rel=1e-5)


@settings(deadline=None)
@given(text, st.lists(text, min_size=1, max_size=3))
def test_every_metric_lies_between_nothing_and_one(said, references):
    for metric in ANSWER_METRICS.values():
        assert 0.0 <= metric.score(said, references) <= 1.0
        assert metric.score(said, []) == 0.0


@pytest.mark.parametrize("name", [name for name in ANSWER_METRICS if name != "choice"])
@settings(deadline=None)
@given(references=st.lists(st.text("bcdxyz123", min_size=1, max_size=6), min_size=1, max_size=4, unique=True))
def test_the_ideal_answer_scores_one(name, references):
    metric = ANSWER_METRICS[name]
    assert metric.score(metric.ideal(references), references) == 1.0


@settings(deadline=None)
@given(text, text)
def test_f1_is_symmetric_and_no_more_than_recall_allows(one, other):
    assert f1(one, [other]) == pytest.approx(f1(other, [one]))
    if plain(one) and plain(other):
        assert (f1(one, [other]) > 0) == (reference_recall(one, [other]) > 0)


def test_words_are_found_whole_or_not_at_all():
    assert contained("It is 42, I think.", "42")
    assert not contained("It is 142.", "42")
    assert not contained("anything", "the")
    assert any_answer("Paris it is", ["London", "paris"]) == 1.0
    assert all_answers("Paris it is", ["London", "paris"]) == 0.5


def test_recall_asks_only_for_the_words_of_the_reference():
    assert reference_recall("well, Paris is what I would say", ["Paris"]) == 1.0
    assert reference_recall("New Amsterdam", ["New York"]) == 0.5


def test_an_answer_earns_nothing_by_words_without_weight():
    reference = ["it was on the island of Skye"]
    assert f1("it was on the mountain", reference) > 0.5
    assert keyword_recall("it was on the mountain", reference) == 0.0
    assert keyword_recall("island of Skye", reference) == f1("island of Skye", reference)


def test_numbered_lines_count_each_for_their_own():
    assert numbered("1. red\n2) blue\n3: green", ["red", "blue", "green"]) == 1.0
    assert numbered("1. blue\n2. red", ["red", "blue"]) == 0.0
    assert numbered("red\nblue", ["red", "blue"]) == 0.0
    assert numbered("1. red\n1. blue", ["blue"]) == 0.0


def test_a_choice_is_the_first_letter_that_stands_by_itself():
    assert choice(" B. It came first", ["B"]) == 1.0
    assert choice("(CAB)", ["CAB"]) == 1.0
    assert choice("Both A and B", ["B"]) == 0.0
    assert choice("no idea", ["B"]) == 0.0


def test_k_precision_is_what_of_the_answer_was_read():
    assert k_precision("the red boat sank", ["A red boat.", "It sank."]) == 1.0
    assert k_precision("red red boat", ["one red boat"]) == pytest.approx(2 / 3)
    assert k_precision("", ["anything"]) == 1.0
    assert k_precision("blue", []) == 0.0


def test_citations_are_held_against_the_sources():
    assert score_citations(["a", "b", "b"], ["a", "c"]) == CitationScores(0.5, 0.5)
    assert score_citations([], []) == CitationScores(1.0, 1.0)
    assert score_citations([], ["a"]) == CitationScores(0.0, 0.0)


def test_quotes_are_held_against_the_spans_that_support():
    gold = {"d": [(10, 20)]}
    assert score_quotes({"d": [(10, 20)]}, gold) == CitationScores(1.0, 1.0)
    assert score_quotes({"d": [(0, 20), (5, 15)], "e": [(0, 20)]}, gold) == CitationScores(0.25, 1.0)
    assert score_quotes({}, gold) == CitationScores(0.0, 0.0)
