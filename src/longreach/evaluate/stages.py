"""The whole chain on questions whose answering span is known, stage by stage, so that a failure is located (after
CoFE-RAG, Liu et al. 2024, arXiv 2410.12248).

Each stage has the share of the span that is still there: in one chunk, among the hits, among the passages. The first
stage that holds less than half of it has lost the question; where the passages hold it and the answer is wrong, the
answering has. `lost_*` are 1 for that stage and 0 for the others, so that their means are shares of all questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from longreach.evaluate.metrics.answers import ANSWER_METRICS
from longreach.evaluate.metrics.citations import score_quotes
from longreach.evaluate.metrics.spans import Range, precision_omega, score_spans
from longreach.evaluate.questions.file import Asked
from longreach.evaluate.respond import Response, model_columns, response_of, reuse_column, settle, start_afresh
from longreach.evaluate.tasks import Example
from longreach.types import Answer, Chunk

if TYPE_CHECKING:
    from longreach.reader import Reader

STAGES = ("chunking", "retrieval", "choosing", "answer")
HALF = 0.5


@dataclass
class StagesRespondent:
    """A reader of which every stage is scored; `spans` says by the example's id what it should find."""

    reader: Reader
    settings: Mapping[str, str]
    spans: Mapping[str, Asked]
    _chunks: dict[str, list[Range]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settle(self.reader.engine)

    @property
    def columns(self) -> Mapping[str, str]:
        stats = self.reader.library.stats()
        parts = {"chunker": stats.chunker, "encoder": stats.encoder, "stages": "1"}
        return {**model_columns(self.reader.engine), **reuse_column(self.reader.engine), **parts, **self.settings}

    def respond(self, example: Example) -> list[Response]:
        asked = self.spans[example.id]
        start_afresh(self.reader.engine)
        answer = self.reader.ask(asked.question)
        # Searched once more, after the answer: what it cost is not changed by that.
        reader = self.reader
        hits = reader.library.search(asked.question, reader.k, retriever=reader.retriever, reranker=reader.reranker)
        stages = score_stages(asked, self._cut(asked.document), [hit.chunk for hit in hits], answer)
        plain = response_of(answer)
        return [Response(plain.text, plain.cost, plain.ranking, plain.cited, plain.read, stages)]

    def _cut(self, document: str) -> list[Range]:
        if document not in self._chunks:
            library = self.reader.library
            self._chunks[document] = [(span.start, span.end) for span in library.spans(library.get(document))]
        return self._chunks[document]


def score_stages(asked: Asked, chunks: list[Range], hits: list[Chunk], answer: Answer) -> dict[str, float]:
    """The scores of each stage, all between 0 and 1; `chunks` are those of the document that tells the answer."""
    wanted = [(asked.start, asked.end)]

    def held(found: list[Chunk]) -> float:
        own = [(chunk.start, chunk.end) for chunk in found if chunk.document_id == asked.document]
        return score_spans(own, wanted).recall

    quotes: dict[str, list[Range]] = {}
    for citation in answer.citations:
        quotes.setdefault(citation.document, []).append((citation.start, citation.end))
    cited = score_quotes(quotes, {asked.document: wanted})
    right = ANSWER_METRICS[asked.metric].score(answer.text, asked.answers)
    reached = {
        "chunking": max((score_spans([chunk], wanted).recall for chunk in chunks), default=0.0),
        "retrieval": held(hits),
        "choosing": held([passage.chunk for passage in answer.passages]),
        "answer": right,
    }
    lost = next((stage for stage in STAGES if reached[stage] < HALF), "")
    # A right answer from elsewhere is right: nothing was lost on it.
    lost = "" if right >= HALF else lost
    return {
        **{f"stage_{stage}": share for stage, share in reached.items()},
        "chunking_precision": precision_omega(chunks, wanted),
        "quote_precision": cited.precision,
        "quote_recall": cited.recall,
        **{f"lost_{stage}": float(stage == lost) for stage in STAGES},
    }
