"""How well the chunks of each chunker cover the spans that answer questions, after Smith and Troynikov (Chroma, 2024).

Chunks of all corpora are embedded, the five nearest to each question by cosine are taken, and their characters are
compared with those of the spans that answer it. Five large chunks find more than five small ones; so recall is also
given for as many of the nearest chunks as fit into a budget of tokens.
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

from harness import Options, Result, at_least, run
from longreach.config import load_settings
from longreach.corpus.chunk import chunkers
from longreach.evaluate.metrics.spans import Range, precision_omega, score_spans
from longreach.fetch import ensure
from longreach.library.embed import Embedder, load_encoder
from longreach.tokens import Tokenizer
from longreach.types import Document

SIZES = (64, 128, 256, 512)
METHODS = ("fixed", "sentence", "recursive", "sections", "semantic", "code")
RETRIEVED = 5
BUDGETS = (500, 1000, 2000)


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
            name = f"recall in 1000 tokens of sentence over fixed, {size} tokens"
            bars.append(at_least(name, sentence["recall in 1000"] / fixed["recall in 1000"], 1.0))
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
    sizes = count.many(texts)
    ranking = np.argsort(-(asked @ encoder.embed_documents(texts).T), axis=1, kind="stable")
    scores, omegas = [], []
    within: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    for question, order in zip(questions, ranking, strict=True):
        name, wanted = question["corpus"], [tuple(span) for span in question["spans"]]
        scores.append(score_spans(_bounds(chunks, order[:RETRIEVED], name), wanted))
        omegas.append(precision_omega([bounds for corpus, bounds in chunks if corpus == name], wanted))
        spent = np.cumsum([sizes[index] for index in order])
        for budget, recalls in within.items():
            fitting = order[: int(np.searchsorted(spent, budget, side="right"))]
            recalls.append(score_spans(_bounds(chunks, fitting, name), wanted).recall)
    return {
        "chunker": spec,
        "chunks": len(chunks),
        "mean tokens": round(float(np.mean(sizes)), 1),
        "iou": _mean([score.iou for score in scores]),
        "precision": _mean([score.precision for score in scores]),
        "recall": _mean([score.recall for score in scores]),
        "precision omega": _mean(omegas),
        **{f"recall in {budget}": _mean(recalls) for budget, recalls in within.items()},
        "seconds": round(seconds, 2),
    }


def _bounds(chunks: Sequence[tuple[str, Range]], found: Sequence[int], corpus: str) -> list[Range]:
    """The ranges of the chunks found. Those of other corpora cost their length and hold nothing: they are put beyond
    the end of every text."""
    ranges = []
    for index in found:
        name, (start, end) = chunks[index]
        ranges.append((start, end) if name == corpus else (start + 10**9, end + 10**9))
    return ranges


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", action="append", help="measure this chunker only; may be given several times")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to count with instead of the encoder's")


if __name__ == "__main__":
    run("chunking", measure, about=__doc__ or "", arguments=_arguments)
