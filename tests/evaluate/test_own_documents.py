"""Questions from one's own documents, and the chain they are asked of."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hashed import open_hashed
from longreach.errors import InputError
from longreach.evaluate.quantities import seconds, size
from longreach.evaluate.questions import Made, makers
from longreach.evaluate.questions.file import Asked, read_questions, write_questions
from longreach.evaluate.questions.sift import Sentences, clear, spread
from longreach.evaluate.score import score
from longreach.evaluate.settings_file import write_settings
from longreach.evaluate.stages import STAGES, StagesRespondent, score_stages
from longreach.evaluate.tasks import tasks
from longreach.types import Anchor, Answer, Chunk, Citation, Document, DocumentInfo, Hit, Passage, Place, Timing, Usage

TEXT = """The Ostra lighthouse

The Ostra lighthouse is a tower of grey stone on the northern cape. Its lamp burned 412 litres of oil in an average
winter month. The first keeper of the lamp was Marta Oberholt from the fishing village. It is closed.

Storm of the century

The storm broke two windows of the lantern room. Nobody was hurt by the falling glass. Its lamp burned 300 litres.
"""


@pytest.fixture
def document() -> Document:
    anchors = [
        Anchor("heading", TEXT.index(label), label, 1) for label in ("The Ostra lighthouse", "Storm of the century")
    ]
    return Document("ostra.md", TEXT, anchors=anchors)


RULES = ("sections", "definitions", "numbers", "names")


def made_of(document: Document, *names: str) -> list[Made]:
    return [one for name in names for one in makers.make(name, engine=None).make(document)]


@pytest.mark.parametrize("name", RULES)
def test_every_maker_asks_for_what_its_span_tells(name: str, document: Document) -> None:
    made = made_of(document, name)
    assert made
    for one in made:
        span = document.text[one.start : one.end]
        assert one.answer.rstrip(".") in span
        assert one.question.strip()
        assert one.kind == name
        assert span == span.strip()


def test_makers_ask_in_their_own_ways(document: Document) -> None:
    asked = {one.question: one.answer for one in made_of(document, *RULES)}
    assert asked["What is the Ostra lighthouse?"] == "a tower of grey stone on the northern cape"
    assert asked["Fill in the blank: Its lamp burned ____ litres of oil in an average winter month."] == "412"
    assert (
        asked["Fill in the blank: The first keeper of the lamp was ____ from the fishing village."] == "Marta Oberholt"
    )
    assert "The storm broke two windows of the lantern room." in asked.values()
    assert not any(question.startswith("What is it") for question in asked)


@pytest.mark.parametrize("marker", ["- ", "3. ", "* "])
def test_the_marker_of_a_list_is_no_part_of_what_is_asked(marker: str) -> None:
    (one,) = made_of(Document("a", f"{marker}{SENTENCE}\n"), "numbers")
    assert one.question.startswith("Fill in the blank: The harbor crane")
    assert one.answer == "38"


def test_makers_ask_nothing_of_a_text_without_sentences() -> None:
    assert made_of(Document("a", ""), *RULES) == []
    assert made_of(Document("a", "\n\n  \n"), *RULES) == []


def kept_of(*texts: str) -> list[Made]:
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    known = Sentences()
    for document in documents:
        known.add(document)
    return clear([one for document in documents for one in made_of(document, "numbers")], known)


SENTENCE = "The harbor crane of Velm lifted 38 barrels before the evening tide."


def test_a_question_that_another_span_answers_is_left_out() -> None:
    assert [one.answer for one in kept_of(SENTENCE, "Nothing like it stands here.")] == ["38"]
    assert kept_of(SENTENCE, SENTENCE) == []
    assert kept_of(SENTENCE, SENTENCE.replace("38", "many")) == []
    assert kept_of(SENTENCE, SENTENCE.replace("38", "91")) == []


def test_few_are_taken_from_every_kind_and_document() -> None:
    made = [Made(f"q{at}", "a", str(at % 4), at, at + 1, kind) for kind in "xy" for at in range(20)]
    chosen = spread(made, 8)
    assert len(chosen) == 8
    assert {(one.kind, one.document) for one in chosen} == {(kind, str(at)) for kind in "xy" for at in range(4)}
    assert chosen == spread(made, 8)
    assert spread(made, 100) == made
    assert spread([], 5) == []


def test_a_question_set_is_read_as_it_was_written_and_reviewed(document: Document, tmp_path: Path) -> None:
    made = made_of(document, "numbers", "names")
    file = tmp_path / "q" / "questions.jsonl"
    quotes = [document.text[one.start : one.end] for one in made]
    write_questions(file, made, quotes)
    asked = read_questions(file)
    assert [(one.question, one.answers, one.quote) for one in asked] == [
        (one.question, (one.answer,), quote) for one, quote in zip(made, quotes, strict=True)
    ]
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines[0]["keep"] = False
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [one.id for one in read_questions(file)] == [one.id for one in asked[1:]]
    with pytest.raises(InputError, match="there already"):
        write_questions(file, made, quotes)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "q"}', "question 1: it needs question, answers"),
        ('{"question": "q", "answers": [], "document": "d", "start": 0, "end": 1, "quote": "x"}', "its answers"),
        ('{"question": "q", "answers": ["a"], "document": "d", "start": "x", "end": 1, "quote": "x"}', "it needs"),
        ("", "no question to ask"),
    ],
)
def test_a_wrong_question_set_gets_one_sentence(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=said):
        read_questions(tmp_path / "q.jsonl")


ASKED = Asked("1", "how much oil?", ("412",), "d", 100, 200, "…", "numbers")


def chunk(start: int, end: int, document: str = "d") -> Chunk:
    return Chunk(f"{document}{start}", document, start, end, "x" * (end - start), 1)


def answer(text: str, passages: list[Chunk], cited: tuple[int, int] | None = None) -> Answer:
    info = DocumentInfo("d", "", {}, "text/plain", 1000, 9, "")
    read = [Passage(number, Hit(one, info, 1.0), one.text) for number, one in enumerate(passages, start=1)]
    citations = [Citation("d", *cited, "…", Place(None, (), 1), 1, 1.0)] if cited else []
    return Answer("q", text, bool(text), citations, read, [], Timing(), Usage(), "m")


WHOLE, CUT = [(0, 250), (250, 500)], [(0, 140), (140, 160), (160, 500)]


@pytest.mark.parametrize(
    ("chunks", "hits", "said", "lost"),
    [
        (WHOLE, [chunk(0, 250)], answer("412 litres", [chunk(0, 250)], (100, 200)), ""),
        (CUT, [chunk(0, 140)], answer("no", [chunk(0, 140)]), "chunking"),
        (WHOLE, [chunk(250, 500), chunk(0, 250, "e")], answer("no", []), "retrieval"),
        (WHOLE, [chunk(0, 250)], answer("no", [chunk(250, 500)]), "choosing"),
        (WHOLE, [chunk(0, 250)], answer("no", [chunk(0, 250)]), "answer"),
        (WHOLE, [], answer("412", []), ""),
    ],
)
def test_a_failure_is_located_at_the_first_stage_that_lost_the_span(chunks, hits, said, lost: str) -> None:
    scores = score_stages(ASKED, chunks, hits, said)
    assert [stage for stage in STAGES if scores[f"lost_{stage}"]] == ([lost] if lost else [])
    assert all(0 <= value <= 1 for value in scores.values())


def test_the_span_that_was_cited_whole_has_full_marks() -> None:
    scores = score_stages(ASKED, WHOLE, [chunk(0, 250)], answer("412", [chunk(0, 250)], (100, 200)))
    assert scores["quote_precision"] == scores["quote_recall"] == scores["stage_choosing"] == 1.0
    assert scores["chunking_precision"] == pytest.approx(100 / 250)


def test_a_task_about_own_documents_needs_both() -> None:
    with pytest.raises(InputError, match="name a library and a file"):
        tasks.make("own_documents", count=len)


def test_a_library_is_asked_about_itself_stage_by_stage(own: tuple[Path, Path]) -> None:
    folder, file = own
    task: Any = tasks.make(f"own_documents(library={str(folder)!r}, file={str(file)!r})")
    assert len(task) == len(task.documents()) == 12
    with open_hashed(folder) as library:

        def ask(question: str) -> Answer:
            hits = library.search(question, 3, retriever="bm25")
            return answer(hits[0].text, [hits[0].chunk], (hits[0].chunk.start, hits[0].chunk.end))

        engine = SimpleNamespace(model="none")
        reader: Any = SimpleNamespace(library=library, engine=engine, k=3, retriever="bm25", reranker="none", ask=ask)
        respondent = StagesRespondent(reader, {"k": "3"}, task.spans)
        assert {"stages": "1", "k": "3", "model": "none"}.items() <= respondent.columns.items()
        (example, *_) = task.examples()
        (response,) = respondent.respond(example)
    scores = score(example.questions[0], response)
    assert next(iter(scores)) == "any_answer"
    assert scores["stage_retrieval"] > 0.5
    assert scores.items() >= response.stages.items()


def test_a_document_that_changed_since_is_named(own: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(own[1].read_text(encoding="utf-8").replace('"The keeper of', '"A keeper of'), encoding="utf-8")
    task: Any = tasks.make(f"own_documents(library={str(own[0])!r}, file={str(file)!r})")
    with pytest.raises(InputError, match="question 1: its quote does not stand in d0 any more"):
        _ = task.spans


@pytest.mark.parametrize(("text", "value"), [("0.5s", 0.5), ("500ms", 0.5), ("2", 2.0), ("1 min", 60.0)])
def test_times_are_read(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("2GB", 2 * 10**9), ("1.5 MiB", 3 * 2**19), ("10", 10)])
def test_sizes_are_read(text: str, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize("text", ["", "fast", "-1s", "0s", "3 parsecs"])
def test_what_is_no_time_gets_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="is not a time"):
        seconds(text)


def test_settings_are_written_beside_what_stood_there(tmp_path: Path) -> None:
    import tomllib

    file = tmp_path / "longreach.toml"
    file.write_text('# mine\nmodel = "embedded"  # small\nk = 3\n')
    write_settings(file, {"k": 8, "chooser": "top_k(k=4)"}, "tuned")
    text = file.read_text()
    assert "# mine" in text
    assert '"embedded"  # small' in text
    assert tomllib.loads(text) == {"model": "embedded", "k": 8, "chooser": "top_k(k=4)"}
    file.write_text("k = = 3")
    with pytest.raises(InputError, match="cannot be read"):
        write_settings(file, {"k": 8}, "tuned")
