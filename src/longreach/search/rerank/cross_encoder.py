"""`cross_encoder`: a network reads the question and each hit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from longreach.errors import ModelError
from longreach.search.rerank import rerankers
from longreach.types import Hit


@rerankers.register("cross_encoder")
@dataclass
class CrossEncoderReranker:
    """Scores the `depth` best hits with the cross-encoder `model`, a Hugging Face id or a folder, through
    sentence-transformers. Nogueira & Cho 2019 (arXiv 1901.04085)."""

    model: str = "cross-encoder/ms-marco-MiniLM-L6-v2"
    depth: Annotated[int, Field(ge=1)] = 50
    batch_size: Annotated[int, Field(ge=1)] = 32

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits, best first; those beyond `depth` keep their order at the end. Raises ModelError."""
        head, tail = list(hits[: self.depth]), list(hits[self.depth :])
        if not head:
            return []
        pairs = [(_clean(query), _clean(hit.text)) for hit in head]
        raw = self._network.predict(pairs, batch_size=self.batch_size, show_progress_bar=False)
        scores = [float(score) for score in raw]
        floor = min(scores)
        ranked = [_scored(hit, score) for hit, score in zip(head, scores, strict=True)]
        ranked.sort(key=lambda hit: -hit.score)
        return ranked + [replace(hit, score=floor - place) for place, hit in enumerate(tail, 1)]

    @cached_property
    def _network(self) -> Any:
        from sentence_transformers import CrossEncoder

        try:
            return CrossEncoder(self.model)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"the cross-encoder {self.model!r} cannot be loaded: {first}") from error


def _scored(hit: Hit, score: float) -> Hit:
    return replace(hit, score=score, scores={**hit.scores, "cross_encoder": score})


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
