"""What the answerers that choose a span of the passages have in common: the prompt, the search, the quote, the bill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from longreach.answer import Draft, Quote
from longreach.answer.spans import Span, SpanSearch, Start, starts_of, stops_of
from longreach.answer.support import sentence_around
from longreach.context.assemble import assemble_examples
from longreach.engine import Engine, Part
from longreach.types import Passage, Usage
from longreach.words import content_words


@dataclass(frozen=True, slots=True)
class Choice:
    """A span at one of the places where it stands; `score` in (0, 1] becomes its quote's."""

    span: Span
    start: Start
    score: float


@dataclass(frozen=True)
class SpanAnswerer(ABC):
    """Answers with a span of at most `max_tokens` tokens; `width` paths are computed per forward, and
    about `max_nodes` in all."""

    max_tokens: int
    width: int
    max_nodes: int

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.width, self.max_nodes) < 1:
            raise ValueError("max_tokens, width and max_nodes must be at least 1")

    @abstractmethod
    def choose(self, question: str, passages: Sequence[Passage], search: SpanSearch) -> Choice | None:
        """The span to answer with; None where there is none."""

    def overhead(self, question: str, engine: Engine) -> int:
        return sum(len(part.token_ids) for part in self.prompt(question, [], engine)) + self.max_tokens

    def prompt(self, question: str, passages: Sequence[str], engine: Engine) -> list[Part]:
        pieces = assemble_examples(question, passages)
        return [Part(tuple(engine.tokenize(text)), passage) for text, passage in pieces]

    def answer(self, question: str, passages: Sequence[Passage], engine: Engine) -> Generator[str, None, Draft]:
        exploration = engine.explore(self.prompt(question, [passage.text for passage in passages], engine))
        search = SpanSearch(exploration, starts_of(passages, engine.tokenize, self.max_tokens), stops_of(engine))
        choice = self.choose(question, passages, search)
        usage = Usage(
            prompt_tokens=exploration.prompt_tokens,
            reused_tokens=exploration.reused_tokens,
            generated_tokens=choice.span.tokens if choice else 0,
            kv_bytes=exploration.kv_bytes,
            loaded_tokens=exploration.loaded_tokens,
            recomputed_tokens=exploration.recomputed_tokens,
        )
        if choice is None:
            return Draft("", [], usage)
        text, quote = quoted(choice)
        yield text
        return Draft(text, [quote], usage)


def quoted(choice: Choice) -> tuple[str, Quote]:
    """The span's text, and the sentence around it as its quote."""
    start = choice.start
    text, end = start.passage.text, start.ends[choice.span.tokens]
    first, last = sentence_around(text, start.start, end)
    return text[start.start : end], Quote(start.passage, first, last, min(1.0, choice.score))


def nearness(question: str, start: Start, tokens: int) -> float:
    """The share of the question's content words in the sentence around a span, the span's own left out."""
    asked = content_words(question)
    text, end = start.passage.text, start.ends[tokens]
    first, last = sentence_around(text, start.start, end)
    around = content_words(text[first:last]) - content_words(text[start.start : end])
    return len(asked & around) / max(1, len(asked))
