"""The most probable span of the passages under the model, found exactly: it cannot invent.

exact-extract, Castel, Ram, Efrat and Levy, "How Optimal is Greedy Decoding for Extractive Question Answering?", AKBC
2022, arXiv 2108.05857. The paper runs the model once from every start; here the search of `longreach.answer.spans` is
over, and exact, once no open path is worth more than the best finished span.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from longreach.answer import answerers
from longreach.answer.span_answerer import Choice, SpanAnswerer, nearness
from longreach.answer.spans import Span, SpanSearch
from longreach.types import Passage


@answerers.register("extract")
@dataclass(frozen=True)
class Extract(SpanAnswerer):
    """The most probable span of at most `max_tokens` tokens.

    `width` paths are computed per forward. After `max_nodes` paths the search ends with the best span found so far.
    """

    max_tokens: int = 24
    width: int = 8
    max_nodes: int = 512

    def choose(self, question: str, passages: Sequence[Passage], search: SpanSearch) -> Choice | None:
        best = self.best(search)
        if best is None:
            return None
        start = max(best.starts, key=lambda start: (nearness(question, start, best.tokens), start.passage.hit.score))
        return Choice(best, start, math.exp(best.log_p))

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
