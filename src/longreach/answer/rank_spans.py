"""A span of the passages, chosen by more than the model's probability: what a model of 135 million parameters knows
about answers is worth a good deal more beside what search knows about passages.

The spans that the model finds likely (`longreach.answer.spans`) are ranked by a log-linear score

    s(span) = w · (log p, log p(stop), words, cosine, nearness, echo, mismatch)

| feature | of what | it is |
|---|---|---|
| log p, log p(stop) | model | probability of the span with its stop, and of the stop alone |
| words | span | its length: takes back the model's bias to short spans |
| cosine | passage | similarity to the question, from the retriever |
| nearness | sentence | share of the question's content words around the span |
| echo | span | share of the span's content words that the question holds already |
| mismatch | span | 1 where it is plainly not of the kind that is asked for (`longreach.answer.kinds`) |

The weights were fitted by logistic regression on 200 questions of Natural Questions (two folds, SmolLM2-135M-Instruct
with all-MiniLM-L6-v2); a score below `least` is no answer. `bench/ask.py` measures it on questions that had no part
in this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from longreach.answer import answerers
from longreach.answer.kinds import mismatch
from longreach.answer.span_answerer import Choice, SpanAnswerer, nearness
from longreach.answer.spans import Span, SpanSearch, Start
from longreach.context.relevance import similarities
from longreach.types import Passage
from longreach.words import content_words

LOG_P, LOG_STOP, WORDS, COSINE, NEARNESS, ECHO, MISMATCH = 0.45, 0.79, 0.40, 9.44, 2.03, -1.20, -0.97


@answerers.register("rank_spans")
@dataclass(frozen=True)
class RankSpans(SpanAnswerer):
    """The best of the spans on the `max_nodes` likeliest paths, if its score is at least `least`.

    Spans have at most `max_tokens` tokens; `width` paths are computed per forward.
    """

    max_tokens: int = 12
    width: int = 12
    max_nodes: int = 60
    least: float = 2.5

    def choose(self, question: str, passages: Sequence[Passage], search: SpanSearch) -> Choice | None:
        found: list[Span] = []
        while len(search.exploration) < self.max_nodes and search.bound > -math.inf:
            found += search.step(min(self.width, self.max_nodes - len(search.exploration)))
        told = similarities([passage.hit for passage in passages])
        cosines = {passage.number: cosine for passage, cosine in zip(passages, told, strict=True)}
        scored = [(score(question, span, start, cosines), span, start) for span in found for start in span.starts]
        best, span, start = max(scored, key=lambda entry: entry[0], default=(-math.inf, None, None))
        if span is None or start is None or best < self.least:
            return None
        return Choice(span, start, 1 / (1 + math.exp(self.least - best)))


def score(question: str, span: Span, start: Start, cosines: dict[int, float]) -> float:
    """The log-linear score of a span at one of the places where it stands; `cosines` by the passage's number."""
    said = start.passage.text[start.start : start.ends[span.tokens]]
    mine, asked = content_words(said), content_words(question)
    echo = len(mine & asked) / len(mine) if mine else 1.0
    return (
        LOG_P * span.log_p
        + LOG_STOP * span.log_stop
        + WORDS * len(said.split())
        + COSINE * cosines[start.passage.number]
        + NEARNESS * nearness(question, start, span.tokens)
        + ECHO * echo
        + MISMATCH * mismatch(question, said)
    )
