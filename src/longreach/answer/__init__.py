"""Answerers: from a question and its passages to an answer with the quotes that support it. One method a file."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from longreach.engine import Engine, Prompt
from longreach.registry import Family
from longreach.types import Passage, Usage


@dataclass(frozen=True, slots=True)
class Quote:
    """The span `[start, end)` of a passage's chunk that supports an answer; `score` in (0, 1], higher is better."""

    passage: Passage
    start: int
    end: int
    score: float

    @property
    def text(self) -> str:
        return self.passage.chunk.text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Draft:
    """What an answerer returns: `text` with the quotes for it, best first. No quotes: the passages do not tell."""

    text: str
    quotes: Sequence[Quote]
    usage: Usage


class Answerer(Protocol):
    """Answers one question from its passages."""

    def answer(self, question: str, passages: Sequence[Passage], engine: Engine) -> Generator[str, None, Draft]:
        """Yields the answer's text as it comes and returns the draft. `passages` stand in the order of the prompt."""
        ...

    def prompt(self, question: str, passages: Sequence[str], engine: Engine) -> Prompt:
        """What the model is given to read."""
        ...

    def overhead(self, question: str, engine: Engine) -> int:
        """Tokens of the prompt beside the passages, and of the answer."""
        ...


answerers: Family[Answerer] = Family("answerers", __name__)
