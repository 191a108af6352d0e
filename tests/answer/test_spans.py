"""Extraction: the spans, their probabilities and the best of them, held against looking at every one alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.answer import answerers
from longreach.answer.extract import Extract
from longreach.answer.kinds import kind_of, mismatch
from longreach.answer.spans import Span, SpanSearch, starts_of, stops_of
from longreach.context import assemble
from longreach.types import Chunk, DocumentInfo, Hit, Passage

STORY = 'Tim had a red ball (his "best" toy). He lost it. Mum said: look in the big tree, Tim!'


@pytest.fixture(autouse=True)
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model's context has no room for all."""
    monkeypatch.setattr(assemble, "EXAMPLES", assemble.EXAMPLES[2:3])


def passage(number: int, text: str, cosine: float = 0.6) -> Passage:
    chunk = Chunk(f"c{number}", f"d{number}", 0, len(text), text, 0)
    info = DocumentInfo(f"d{number}", "", {}, "", 0, 1, "")
    return Passage(number, Hit(chunk, info, 1.0, {"dense": cosine}), text)


def all_spans(original, engine, prompt, passages, max_tokens) -> dict[tuple[int, ...], float]:
    """Every span's tokens with its log p, each computed alone by a whole forward."""
    import torch

    stops = stops_of(engine)
    worth: dict[tuple[int, ...], float] = {}
    for start in starts_of(passages, engine.tokenize, max_tokens):
        for length in start.ends:
            tokens = tuple(start.tokens[:length])
            if tokens in worth:
                continue
            with torch.inference_mode():
                logits = original(torch.tensor([[*prompt, *tokens]])).logits[0].float()
            steps = logits.log_softmax(-1)
            at = len(prompt) - 1
            log_p = sum(float(steps[at + i, token]) for i, token in enumerate(tokens))
            worth[tokens] = log_p + float(steps[at + len(tokens), stops].logsumexp(-1))
    return worth


@pytest.mark.parametrize("width", [1, 4, 64])
def test_extract_finds_the_most_probable_of_all_spans(original, storyteller, width: int) -> None:
    prompt = storyteller.encode("Tim went to the park. He looked for")
    passages = [passage(1, STORY), passage(2, "He found the ball in the tree.")]
    worth = all_spans(original, storyteller, prompt, passages, 6)
    search = SpanSearch(
        storyteller.explore(prompt), starts_of(passages, storyteller.tokenize, 6), stops_of(storyteller)
    )
    best = Extract(max_tokens=6, width=width, max_nodes=10_000).best(search)
    assert best is not None
    assert best.log_p == pytest.approx(max(worth.values()), abs=1e-4)


def test_a_search_to_its_end_finds_every_span_once_at_its_own_probability(original, storyteller) -> None:
    prompt = storyteller.encode("Once upon a time")
    passages = [passage(1, "A red ball, a big ball."), passage(2, "Tim (a boy) ran.")]
    worth = all_spans(original, storyteller, prompt, passages, 5)
    starts = starts_of(passages, storyteller.tokenize, 5)
    search = SpanSearch(storyteller.explore(prompt), starts, stops_of(storyteller))
    found: list[Span] = []
    while search.bound > -math.inf:
        found += search.step(7)
    spans = {tuple(span.starts[0].tokens[: span.tokens]): span for span in found}
    assert len(spans) == len(found)
    assert spans.keys() == worth.keys()
    assert all(spans[tokens].log_p == pytest.approx(worth[tokens], abs=1e-4) for tokens in worth)
    assert sum(len(span.starts) for span in found) == sum(len(start.ends) for start in starts)


def test_the_bound_never_lies(storyteller) -> None:
    search = SpanSearch(
        storyteller.explore(storyteller.encode("Once")), starts_of([passage(1, STORY)], storyteller.tokenize, 8), [1, 2]
    )
    while search.bound > -math.inf:
        bound = search.bound
        assert all(span.log_p <= bound + 1e-6 for span in search.step(3))


@settings(max_examples=50)
@given(text=st.text(min_size=1, max_size=60), max_tokens=st.integers(1, 8))
def test_every_start_and_end_is_a_span_of_the_text(text: str, max_tokens: int) -> None:
    for start in starts_of([passage(1, text)], lambda part: [ord(c) for c in part], max_tokens):
        for length, end in start.ends.items():
            assert 0 < length <= max_tokens
            assert text[start.start : end].strip()
            joined = "".join(map(chr, start.tokens[:length]))
            assert "".join(joined.split()) == "".join(text[start.start : end].split())


@pytest.mark.parametrize("spec", ["extract", "rank_spans(least=-1000)"])
def test_an_extracted_answer_stands_in_its_passage_and_its_quote(storyteller, spec: str) -> None:
    passages = [passage(1, STORY), passage(2, "He found the ball in the tree.")]
    run = answerers.make(spec).answer("Where was the ball?", passages, storyteller)
    pieces = []
    try:
        while True:
            pieces.append(next(run))
    except StopIteration as end:
        draft = end.value
    assert pieces == [draft.text]
    (quote,) = draft.quotes
    assert draft.text in quote.text
    assert quote.text in quote.passage.chunk.text


def test_a_span_without_enough_behind_it_is_no_answer(storyteller) -> None:
    run = answerers.make("rank_spans").answer("What is the torque?", [passage(1, STORY, cosine=0.0)], storyteller)
    with pytest.raises(StopIteration) as end:
        next(run)
    assert (end.value.value.text, list(end.value.value.quotes)) == ("", [])


def test_a_passage_without_words_has_no_span(storyteller) -> None:
    run = answerers.make("extract").answer("Where?", [passage(1, "… — !")], storyteller)
    with pytest.raises(StopIteration) as end:
        next(run)
    assert end.value.value.text == ""


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("May 27, 1937", "date"),
        ("May", "date"),
        ("1842", "date"),
        ("206", "number"),
        ("twenty-four", "number"),
        ("Humphrey Bogart", "name"),
        ("the Bay of Pigs", "name"),
        ("a long way", "other"),
    ],
)
def test_kinds(said: str, kind: str) -> None:
    assert kind_of(said) == kind


def test_a_number_is_no_answer_to_who_and_a_name_none_to_how_many() -> None:
    assert mismatch("Who wrote it?", "1842")
    assert mismatch("How many are there?", "Humphrey Bogart")
    assert not mismatch("Who wrote it?", "Humphrey Bogart")
    assert not mismatch("What is it?", "anything")
