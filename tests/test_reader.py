"""The reader: what it asks of each room, and what it never lets through."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest

from hashed import HashingEncoder
from longreach.engine import Completion, Engine, Message, Piece, Prompt, Sampling, Stream
from longreach.errors import InputError, PromptTooLongError
from longreach.library import Library
from longreach.reader import NOT_TOLD, Found, Reader
from longreach.types import Answer, Timing, Usage
from longreach.words import content_words

PUMP = "# Pump\n\nThe pump turns at 900 rpm. Tighten its bolts to 25 Nm; more than that cracks the housing.\n"
LAKE = "Lake Baikal is a rift lake in southern Siberia. It is the deepest lake of the world.\n"


class Scripted(Engine):
    """An engine that answers with a given text, one word a piece, and remembers its prompts."""

    model = "scripted"
    context_length = 400
    parameters = 0
    end_tokens = frozenset()

    def __init__(self, text: str) -> None:
        self.text = text
        self.prompts: list[str] = []

    def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
        shown = "\n".join(part.content for part in prompt if isinstance(part, Message))
        self.prompts.append(shown)

        def run(cancelled: Event) -> Generator[Piece, None, Completion]:
            for word in self.text.split(" "):
                yield Piece(word + " ", None)
            usage = Usage(prompt_tokens=len(shown.split()), generated_tokens=len(self.text.split()))
            return Completion(self.text, (), "stop", Timing(), usage)

        return Stream(run)

    def count(self, text: str) -> int:
        return len(text.split())

    def tokenize(self, text: str) -> list[int]:
        raise NotImplementedError

    def encode(self, prompt: Prompt) -> list[int]:
        raise NotImplementedError

    def decode(self, token_ids: Sequence[int]) -> str:
        raise NotImplementedError


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "l.library", create=True, encoder=HashingEncoder(), count=len) as opened:
        opened.add_text("pump", PUMP, {"kind": "manual"}, source="/manuals/pump.md")
        opened.add_text("lake", LAKE, {"kind": "atlas"}, source="/atlas/lake.md")
        yield opened


def ask(library: Library, text: str, question: str = "How tight are the pump's bolts?", **options: object) -> Answer:
    return Reader(library, Scripted(text), answer="generate", least_relevance=-1).ask(question, **options)  # type: ignore[arg-type]


def test_a_supported_answer_is_cited_to_the_character(library: Library) -> None:
    answer = ask(library, "Tighten the bolts to 25 Nm.")
    assert answer.found
    assert answer.text == "Tighten the bolts to 25 Nm."
    citation = answer.citations[0]
    assert citation.document == "pump"
    assert library.get("pump").text[citation.start : citation.end] == citation.quote
    assert "25 Nm" in citation.quote
    assert citation.place.line == 3


def test_an_answer_that_the_passages_do_not_hold_is_not_given(library: Library) -> None:
    answer = ask(library, "Seventy, as Admiral Nelson ordered.")
    assert (answer.found, answer.text, list(answer.citations)) == (False, NOT_TOLD, [])
    assert answer.passages


def test_where_nothing_is_relevant_the_model_is_not_asked_and_the_nearest_are_named(library: Library) -> None:
    engine = Scripted("Tighten the bolts to 25 Nm.")
    answer = Reader(library, engine, answer="generate").ask("Who sings tenor tonight?")
    assert (answer.found, answer.text, list(answer.passages)) == (False, NOT_TOLD, [])
    assert engine.prompts == []
    assert {hit.document.id for hit in answer.nearest} == {"pump", "lake"}


def test_a_stream_tells_the_passages_then_the_text_then_the_answer(library: Library) -> None:
    events = list(Reader(library, Scripted("Tighten to 25 Nm."), answer="generate").stream("How tight are the bolts?"))
    assert isinstance(events[0], Found)
    assert "".join(event for event in events if isinstance(event, str)).strip() == "Tighten to 25 Nm."
    assert isinstance(events[-1], Answer)
    assert events[-1].timing.search <= events[-1].timing.ttft <= events[-1].timing.total


@pytest.mark.parametrize(
    ("filters", "document"), [({"where": {"kind": "atlas"}}, "lake"), ({"under": "/manuals"}, "pump")]
)
def test_only_documents_that_meet_the_filters_are_read(library: Library, filters: dict, document: str) -> None:
    answer = ask(library, "Nothing.", "Tell about the pump and the lake", **filters)
    assert {passage.chunk.document_id for passage in answer.passages} == {document}


def test_the_prompt_stays_within_the_models_context(library: Library) -> None:
    library.add_text("long", "The pump hums a tune. " * 400)
    engine = Scripted("Nothing.")
    Reader(library, engine, answer="generate(max_tokens=40)").ask("What does the pump hum?")
    assert engine.count(engine.prompts[0]) + 40 <= engine.context_length


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused_before_anything_is_done(library: Library, question: str) -> None:
    with pytest.raises(InputError, match="the question is empty"):
        Reader(library, Scripted(""), answer="generate").stream(question)


def test_a_question_longer_than_the_context_is_refused(library: Library) -> None:
    with pytest.raises(PromptTooLongError, match="the question is too long"):
        ask(library, "", "why " * 500)


def test_an_empty_library_tells_nothing(tmp_path: Path) -> None:
    with Library.open(tmp_path / "e.library", create=True, encoder=HashingEncoder(), count=len) as empty:
        answer = ask(empty, "Anything at all.")
    assert (answer.found, answer.text, list(answer.passages)) == (False, NOT_TOLD, [])


class Keeping(Scripted):
    """One that has read some passages before."""

    keeps_passages = True

    def __init__(self, text: str, kept: str) -> None:
        super().__init__(text)
        self.words = kept
        self.ahead: list[str] = []

    def kept(self, prompt: Prompt) -> list[bool]:
        return [self.words in text for part in prompt if isinstance(part, Message) for text in part.passages]

    def read_ahead(self, prompt: Prompt) -> int:
        texts = [text for part in prompt if isinstance(part, Message) for text in part.passages]
        self.ahead += texts
        return len(texts)


def test_of_passages_that_say_as_much_the_one_that_was_read_before_is_chosen(tmp_path: Path) -> None:
    with Library.open(tmp_path / "twins.library", create=True, encoder=HashingEncoder(), count=len) as library:
        for name in ("east", "west", "north", "south"):
            library.add_text(name, f"The {name} bell rings at noon.\n")
        library.add_text("other", "Nothing is said about that here at all.\n")

        def read(engine: Engine) -> list[str]:
            reader = Reader(library, engine, answer="generate", chooser="top_k(k=1)", least_relevance=-1)
            return [p.chunk.document_id for p in reader.ask("When does the bell ring at noon?").passages]

        plain = read(Scripted("At noon."))
        for name in ("east", "west", "north", "south"):
            assert read(Keeping("At noon.", name)) == [name]
        assert read(Keeping("At noon.", "nowhere")) == plain
        assert read(Keeping("At noon.", "Nothing")) == plain  # kept, and not level with the others


def test_reading_ahead_stays_with_the_documents_asked_for(library: Library) -> None:
    engine = Keeping("", "")
    reader = Reader(library, engine, answer="generate")
    steps = list(reader.read_ahead(under="/manuals"))
    assert {step.document.id for step in steps} == {"pump"}
    assert "".join(engine.ahead).strip() == PUMP.strip()
    assert {step.document.id for step in reader.read_ahead()} == {"pump", "lake"}


def test_content_words_are_stems_without_function_words() -> None:
    assert content_words("What are the tightened bolts of it?") == content_words("Tighten a bolt")
