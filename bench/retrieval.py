"""How well and how quickly the retrievers find what answers a question, beside bm25s and an exact search in NumPy.

Each document of a pack is one chunk. nDCG@10 and recall@10 (through ir-measures) on four packs, questions a second, and
the latency of a search, one question at a time, in a library of 100,000 chunks.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer

from harness import Bar, Options, Result, at_least, at_most, run
from longreach.config import load_settings
from longreach.evaluate.metrics.ranking import score_ranking
from longreach.library import Library
from longreach.library.embed import Embedder, load_encoder
from longreach.types import Document

PACKS = {"scifact": 0.68, "code_qa": 0.59, "musique": 0.53, "nq_passages": 0.87}
"""The packs, each with the nDCG@10 that BM25 is known to reach there (data/README.md)."""
WHOLE = "fixed(tokens=1000000)"
WARM = 10

Run = dict[str, dict[str, float]]


@dataclass
class Remembering:
    """An encoder that keeps the vectors of documents, so that every method of a run compares the same ones."""

    inner: Embedder
    known: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    @property
    def dim(self) -> int:
        return self.inner.dim

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        missing = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(missing, self.inner.embed_documents(missing), strict=True))
        return np.stack([self.known[text] for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return self.inner.embed_queries(texts)


def words(text: str) -> int:
    return len(text.split())


def evaluate(pack: Mapping[str, Any], found: Run) -> dict[str, float]:
    """nDCG@10 and recall@10 over all questions of the pack."""
    scores = score_ranking(pack["qrels"], found, ["nDCG@10", "R@10"])
    return {"ndcg@10": round(scores["nDCG@10"], 4), "recall@10": round(scores["R@10"], 4)}


def asked(queries: Mapping[str, str], retrieve: Callable[[str], dict[str, float]]) -> tuple[Run, float]:
    """What `retrieve` finds for each question, and questions a second, warm."""
    for query in list(queries.values())[:WARM]:
        retrieve(query)
    started = time.perf_counter()
    found = {name: retrieve(query) for name, query in queries.items()}
    return found, len(queries) / (time.perf_counter() - started)


def bm25s_search(texts: Mapping[str, str]) -> Callable[[str], dict[str, float]]:
    """The rival: bm25s with the Snowball stemmer and English stop words, k1 1.2, b 0.75."""
    ids, stemmer = list(texts), Stemmer.Stemmer("english")
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(
        bm25s.tokenize(list(texts.values()), stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
    )

    def retrieve(query: str) -> dict[str, float]:
        tokens = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
        rows, scores = index.retrieve(tokens, k=10, show_progress=False)
        return {ids[row]: float(score) for row, score in zip(rows[0], scores[0], strict=True) if score > 0}

    return retrieve


def exact_search(texts: Mapping[str, str], encoder: Remembering) -> Callable[[str], dict[str, float]]:
    """The reference for `dense`: every inner product, in NumPy."""
    ids, vectors = list(texts), encoder.embed_documents(list(texts.values()))

    def retrieve(query: str) -> dict[str, float]:
        scores = vectors @ encoder.embed_queries([query])[0]
        return {ids[row]: float(scores[row]) for row in np.argsort(-scores)[:10]}

    return retrieve


def library_search(library: Library, spec: str) -> Callable[[str], dict[str, float]]:
    return lambda query: {hit.document.id: hit.score for hit in library.search(query, 10, retriever=spec)}


def quality(name: str, pack: Mapping[str, Any], encoder: Remembering, folder: Path, specs: Sequence[str]) -> list[Any]:
    """A row for each method on one pack."""
    library = Library.open(folder / name, create=True, encoder=encoder, chunker=WHOLE, count=words)
    library.add_documents(Document(id, text) for id, text in pack["docs"].items())
    methods = {spec: library_search(library, spec) for spec in specs}
    methods |= {"bm25s": bm25s_search(pack["docs"]), "exact (NumPy)": exact_search(pack["docs"], encoder)}
    rows = []
    for method, retrieve in methods.items():
        found, rate = asked(pack["queries"], retrieve)
        rows.append({"on": name, "method": method, **evaluate(pack, found), "queries/s": round(rate, 1)})
    return rows


def latency(encoder: Remembering, queries: Sequence[str], folder: Path, chunks: int) -> list[dict[str, Any]]:
    """Milliseconds of one search at a time in a library of `chunks` chunks, made of real passages mixed in pairs."""
    random = np.random.default_rng(0)
    texts = list(encoder.known)
    vectors = np.stack(list(encoder.known.values()))

    class Mixed(Remembering):
        def embed_documents(self, given: Sequence[str]) -> np.ndarray:
            base = vectors[[int(text.rsplit(" ", 1)[1]) for text in given]]
            mixed = base + 0.02 * random.standard_normal(base.shape).astype(np.float32)
            return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)

    def documents() -> Iterator[Document]:
        for number in range(chunks):
            one, other = random.integers(len(texts), size=2)
            mixed = texts[one].split()[:80] + texts[other].split()[:40]
            yield Document(f"d{number}", f"{' '.join(mixed)} {number} {one}")

    library = Library.open(folder / "large", create=True, encoder=Mixed(encoder.inner), chunker=WHOLE, count=words)
    started = time.perf_counter()
    library.add_documents(documents())
    print(f"{chunks} chunks indexed in {time.perf_counter() - started:.0f} s, encoder apart", flush=True)
    rows = []
    steps = {
        spec: lambda query, spec=spec: library.search(query, 10, retriever=spec) for spec in ("bm25", "dense", "hybrid")
    }
    for name, step in {"the question's vector alone": lambda query: encoder.embed_queries([query]), **steps}.items():
        for query in queries[:WARM]:
            step(query)
        taken = []
        for query in queries[WARM:]:
            started = time.perf_counter()
            step(query)
            taken.append(1e3 * (time.perf_counter() - started))
        p50, p95 = np.percentile(taken, [50, 95])
        rows.append({"method": name, "p50 ms": round(float(p50), 1), "p95 ms": round(float(p95), 1)})
    return rows


def bars_of(rows: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """What the retrievers must reach, pack by pack."""
    bars = []
    for name in dict.fromkeys(row["on"] for row in rows):
        score = {row["method"]: row["ndcg@10"] for row in rows if row["on"] == name}
        bars.append(at_least(f"{name}: bm25, known figure less 0.01", score["bm25"], PACKS[name] - 0.01))
        bars.append(at_least(f"{name}: bm25, bm25s less 0.01", score["bm25"], round(score["bm25s"] - 0.01, 4)))
        bars.append(
            at_least(
                f"{name}: hybrid, the better of bm25 and dense", score["hybrid"], max(score["bm25"], score["dense"])
            )
        )
        bars.append(at_least(f"{name}: dense, exact search less 0.001", score["dense"], score["exact (NumPy)"] - 0.001))
        if name == "scifact":
            bars.append(at_least("scifact: hybrid", score["hybrid"], 0.70))
    return bars


def measure(options: Options) -> Result:
    encoder = Remembering(load_encoder("embedded", cache=load_settings().cache))
    rows: list[dict[str, Any]] = []
    queries: list[str] = []
    specs = ["bm25", "dense", "hybrid", *options.extra.spec]
    with tempfile.TemporaryDirectory() as folder:
        for name in options.extra.pack or (["code_qa"] if options.quick else PACKS):
            with gzip.open(options.data / f"{name}.json.gz", "rt", encoding="utf-8") as file:
                pack = json.load(file)
            rows += [
                {**row, "p50 ms": None, "p95 ms": None} for row in quality(name, pack, encoder, Path(folder), specs)
            ]
            queries += list(pack["queries"].values())[:60]
        bars = bars_of(rows)
        chunks = 5_000 if options.quick else 100_000
        for row in latency(encoder, queries, Path(folder), chunks):
            empty = {"ndcg@10": None, "recall@10": None, "queries/s": round(1e3 / row["p50 ms"], 1)}
            rows.append({"on": f"{chunks:,} chunks", "method": row["method"], **empty, **row})
            if row["method"] == "hybrid":
                bars.append(at_most(f"hybrid at {chunks:,} chunks, p50 ms", row["p50 ms"], 20.0))
    notes = ["each document one chunk; dense and hybrid include embedding the question; one question at a time, warm"]
    return Result(rows, bars, notes)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pack", action="append", choices=list(PACKS), help="measure on this pack only")
    parser.add_argument("--spec", action="append", default=[], help="measure this retriever too")


if __name__ == "__main__":
    run("retrieval", measure, about=__doc__ or "", arguments=arguments)
