"""The most probable span of the passages under the model, found exactly: it cannot invent.

exact-extract, Castel, Ram, Efrat and Levy, "How Optimal is Greedy Decoding for Extractive Question Answering?", AKBC
2022, arXiv 2108.05857. The paper runs the model once from every start; here the search of `longreach.answer.spans` is
over, and exact, once no open path is worth more than the best finished span.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from longreach.answer import Draft, Quote, answerers
from longreach.answer.spans import Span, SpanSearch, Start, starts_of, stops_of
from longreach.answer.support import content_words, sentence_around
from longreach.context.assemble import assemble_examples
from longreach.engine import Engine
from longreach.types import Passage, Usage

if TYPE_CHECKING:
    from longreach.engine.exploration import Exploration


@answerers.register("extract")
@dataclass(frozen=True)
class Extract:
    """The most probable span of at most `max_tokens` tokens.

    `width` paths are computed per forward. After `max_nodes` paths the search ends with the best span found so far.
    """

    max_tokens: int = 24
    width: int = 8
    max_nodes: int = 512

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.width, self.max_nodes) < 1:
            raise ValueError("max_tokens, width and max_nodes must be at least 1")

    def overhead(self, question: str, engine: Engine) -> int:
        return len(prompt(question, [], engine)) + self.max_tokens

    def answer(self, question: str, passages: Sequence[Passage], engine: Engine) -> Generator[str, None, Draft]:
        exploration = engine.explore(prompt(question, passages, engine))
        starts = starts_of(passages, engine.tokenize, self.max_tokens)
        best = self.best(SpanSearch(exploration, starts, stops_of(engine)))
        usage = spent(exploration, best.tokens if best else 0)
        if best is None:
            return Draft("", [], usage)
        start = max(best.starts, key=lambda start: (nearness(question, start, best.tokens), start.passage.hit.score))
        text, quote = quoted(start, best.tokens, math.exp(best.log_p))
        yield text
        return Draft(text, [quote], usage)

    def best(self, search: SpanSearch) -> Span | None:
        """The most probable span; None where there is none."""
        best: Span | None = None
        while len(search.exploration) < self.max_nodes:
            floor = best.log_p if best else -math.inf
            if search.bound <= floor:
                break
            found = search.step(self.width, floor)
            best = max([*found, *([best] if best else [])], key=lambda span: span.log_p, default=None)
        return best


def spent(exploration: Exploration, tokens: int) -> Usage:
    """What an answer of `tokens` tokens cost."""
    return Usage(
        prompt_tokens=exploration.prompt_tokens,
        reused_tokens=exploration.reused_tokens,
        generated_tokens=tokens,
        kv_bytes=exploration.kv_bytes,
    )


def prompt(question: str, passages: Sequence[Passage], engine: Engine) -> list[int]:
    """The tokens of the prompt with examples."""
    return list(chain.from_iterable(engine.tokenize(piece) for piece in assemble_examples(question, passages) if piece))


def nearness(question: str, start: Start, tokens: int) -> float:
    """The share of the question's content words in the sentence around a span, the span's own left out."""
    asked = content_words(question)
    text, end = start.passage.text, start.ends[tokens]
    first, last = sentence_around(text, start.start, end)
    around = content_words(text[first:last]) - content_words(text[start.start : end])
    return len(asked & around) / max(1, len(asked))


def quoted(start: Start, tokens: int, score: float) -> tuple[str, Quote]:
    """The span's text, and the sentence around it as its quote."""
    text, end = start.passage.text, start.ends[tokens]
    first, last = sentence_around(text, start.start, end)
    return text[start.start : end], Quote(start.passage, first, last, min(1.0, score))
