"""Support: what the passages hold is kept with its quote, what they do not is taken out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longreach.answer.support import support
from longreach.types import Chunk, DocumentInfo, Hit, Passage

BAIKAL = (
    "Lake Baikal is a rift lake in southern Siberia. With a maximum depth of 1,642 metres it is the world's deepest "
    "lake. Its seal lives nowhere else."
)
PUMP = "The pump turns at 900 rpm. Tighten its bolts to 25 Nm; more than that cracks the housing."


def passage(number: int, text: str) -> Passage:
    chunk = Chunk(f"c{number}", f"d{number}", 0, len(text), text, 0)
    return Passage(number, Hit(chunk, DocumentInfo(f"d{number}", "", {}, "", 0, 1, ""), 1.0 / number), text)


PASSAGES = [passage(1, BAIKAL), passage(2, PUMP)]


def test_a_supported_answer_comes_back_whole_with_the_sentence_that_says_it() -> None:
    text, quotes = support("The bolts are tightened to 25 Nm.", "How tight are the pump's bolts?", PASSAGES)
    assert text == "The bolts are tightened to 25 Nm."
    assert quotes[0].passage.number == 2
    assert quotes[0].text.startswith("Tighten its bolts to 25 Nm")


def test_an_invented_answer_has_no_support() -> None:
    assert support("The chief engineer was Harriet Quimby.", "Who built the pump?", PASSAGES) == ("", [])


def test_a_wrong_number_is_no_support_however_alike_the_rest() -> None:
    assert support("Tighten its bolts to 52 Nm.", "How tight are the bolts?", PASSAGES) == ("", [])


def test_the_sentences_without_support_are_taken_out() -> None:
    text, quotes = support(
        "It lies in southern Siberia. It was dug by giants in the bronze age.", "Where is Lake Baikal?", PASSAGES
    )
    assert text == "It lies in southern Siberia."
    assert [quote.passage.number for quote in quotes] == [1]


def test_an_answer_in_the_questions_own_words_may_be_supported() -> None:
    text, quotes = support("Lake Baikal.", "Is Lake Baikal the deepest lake?", PASSAGES)
    assert text == "Lake Baikal."
    assert quotes[0].passage.number == 1


@given(st.text(max_size=80), st.text(max_size=40), st.lists(st.text(min_size=1, max_size=120), max_size=3))
def test_every_quote_is_a_span_of_its_passage(text: str, question: str, texts: list[str]) -> None:
    passages = [passage(number, held) for number, held in enumerate(texts, start=1)]
    kept, quotes = support(text, question, passages)
    assert bool(kept) <= bool(quotes)
    for quote in quotes:
        assert 0 <= quote.start < quote.end <= len(quote.passage.chunk.text)
        assert quote.text.strip()
        assert 0 < quote.score <= 1
