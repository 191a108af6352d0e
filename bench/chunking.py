"""How well the chunks of each chunker cover the spans that answer questions, after Smith and Troynikov (Chroma, 2024).

Chunks of all corpora are embedded, the five nearest to each question by cosine are taken, and their characters are
compared with those of the spans that answer it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import Options, Result, Row, at_least, run
from longreach.config import load_settings
from longreach.corpus.chunk import chunkers
from longreach.evaluate.metrics.spans import precision_omega, score_spans
from longreach.fetch import ensure
from longreach.library.embed import Embedder, load_encoder
from longreach.tokens import Tokenizer
from longreach.types import Document

SIZES = (64, 128, 256, 512)
METHODS = ("fixed", "sentence", "recursive", "sections", "semantic", "code")
RETRIEVED = 5


class Remembering:
    """An encoder that embeds a text once, since many chunkers make some of the same chunks."""

    def __init__(self, encoder: Embedder) -> None:
        self.encoder = encoder
        self.vectors: dict[str, np.ndarray] = {}

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        unknown = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        self.vectors.update(zip(unknown, self.encoder.embed_documents(unknown), strict=True))
        return np.stack([self.vectors[text] for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return self.encoder.embed_queries(texts)


def specs(options: Options) -> list[str]:
    """What is measured: every chunker at every size, and overlap where there is such a thing."""
    if options.extra.spec:
        return list(options.extra.spec)
    if options.quick:
        return [f"{method}(tokens=128)" for method in ("fixed", "sentence", "recursive")]
    plain = [f"{method}(tokens={size})" for size in SIZES for method in METHODS]
    return plain + [
        f"{method}(tokens={size}, overlap={size // 2})" for size in SIZES for method in ("fixed", "sentence")
    ]


def measure(options: Options) -> Result:
    with gzip.open(options.data / "chunk_spans.json.gz", "rt", encoding="utf-8") as file:
        pack = json.load(file)
    cache = load_settings().cache
    encoder = Remembering(load_encoder("embedded", cache=cache))
    count = Tokenizer.from_file(options.extra.tokenizer or ensure("encoder", cache=cache) / "tokenizer.json")
    questions = pack["questions"]
    asked = encoder.embed_queries([question["question"] for question in questions])
    rows = [row(spec, pack["corpora"], questions, asked, encoder, count) for spec in specs(options)]
    by_spec = {row["chunker"]: row for row in rows}
    bars = []
    for size in SIZES:
        sentence, fixed = by_spec.get(f"sentence(tokens={size})"), by_spec.get(f"fixed(tokens={size})")
        if sentence and fixed:
            name = f"IoU of sentence over fixed, {size} tokens"
            bars.append(at_least(name, sentence["iou"] / fixed["iou"], 1.0))
    notes = [
        f"{len(questions)} questions, {RETRIEVED} chunks each; shares of characters; tokens are the encoder's, which "
        "reads no more than 256 of a chunk.",
    ]
    return Result(rows, bars, notes)


def row(
    spec: str,
    corpora: dict[str, str],
    questions: list[dict[str, Any]],
    asked: np.ndarray,
    encoder: Remembering,
    count: Tokenizer,
) -> dict[str, Any]:
    """The scores of one chunker, means over the questions."""
    chunker = chunkers.make(spec, count=count, encoder=encoder)
    started = time.perf_counter()
    chunks = [
        (name, (span.start, span.end))
        for name, text in corpora.items()
        for span in chunker.chunk(Document(id=name, text=text))
    ]
    seconds = time.perf_counter() - started
    texts = [corpora[name][start:end] for name, (start, end) in chunks]
    nearest = np.argsort(-(asked @ encoder.embed_documents(texts).T), axis=1, kind="stable")[:, :RETRIEVED]
    scores, omegas = [], []
    for question, found in zip(questions, nearest, strict=True):
        wanted = [tuple(span) for span in question["spans"]]
        retrieved = [chunks[index] for index in found]
        hits = [bounds for name, bounds in retrieved if name == question["corpus"]]
        strays = sum(end - start for name, (start, end) in retrieved if name != question["corpus"])
        # A chunk of another corpus costs its length and holds nothing: it lies beyond the end of every range.
        scores.append(score_spans([*hits, *([(10**9, 10**9 + strays)] if strays else [])], wanted))
        omegas.append(precision_omega([bounds for name, bounds in chunks if name == question["corpus"]], wanted))
    result: Row = {
        "chunker": spec,
        "chunks": len(chunks),
        "mean tokens": round(float(np.mean(count.many(texts))), 1),
        "iou": round(float(np.mean([score.iou for score in scores])), 4),
        "precision": round(float(np.mean([score.precision for score in scores])), 4),
        "recall": round(float(np.mean([score.recall for score in scores])), 4),
        "precision omega": round(float(np.mean(omegas)), 4),
        "seconds": round(seconds, 2),
    }
    return dict(result)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", action="append", help="measure this chunker only; may be given several times")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to count with instead of the encoder's")


if __name__ == "__main__":
    run("chunking", measure, about=__doc__ or "", arguments=_arguments)
