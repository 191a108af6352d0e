"""From question to cited answer on Natural Questions passages: is it right, is it cited rightly, and how soon does it
come?

The questions are 200 that no choice in the project was made on. "Removed" asks questions whose gold passages were
taken out of the library: the right answer is that the documents do not tell.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import Options, Result, Row, at_least, run
from longreach import Engine, Library, Reader
from longreach.config import load_settings
from longreach.types import Answer, Document

UNTOUCHED = 400
"""Questions of the seeded shuffle that were looked at while the prompts were written."""
COLD_RUNS = 3


def measure(options: Options) -> Result:
    with gzip.open(options.data / "nq_passages.json.gz", "rt", encoding="utf-8") as file:
        pack = json.load(file)
    asked = list(pack["queries"])
    random.Random(0).shuffle(asked)
    asked = asked[UNTOUCHED:][: 8 if options.quick else options.extra.questions]
    docs = pack["docs"]
    if options.quick:
        wanted = {gold for query in asked for gold in pack["qrels"][query]}
        docs = {id: text for number, (id, text) in enumerate(docs.items()) if id in wanted or number < 200}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nq.library"
        settings = load_settings()
        library = Library.open(path, create=True, cache=settings.cache)
        library.add_documents(Document(id, text) for id, text in docs.items())
        engine = Engine.load(options.extra.model)
        rows: list[Row] = []
        for spec in options.extra.answer:
            reader = Reader(library, engine, answer=spec)
            reader.ask("What is this?")  # the first forward of a process pays for set-up
            answers = [reader.ask(pack["queries"][query]) for query in asked]
            rows.append(row(spec, library, asked, answers, pack))
        library.close()
        removed = without_gold(path, Path(folder) / "removed.library", asked[: len(asked) // 4], pack)
        for index, spec in enumerate(options.extra.answer):
            reader = Reader(removed, engine, answer=spec)
            refused = [not reader.ask(pack["queries"][query]).found for query in asked[: len(asked) // 4]]
            rows[index] = {**rows[index], "removed_refused": round(statistics.mean(refused), 3)}
        cold = [] if options.quick else [cold_start(path, pack["queries"][query]) for query in asked[:COLD_RUNS]]
    bars = [at_least(f"verbatim quotes, {row['answer']}", float(row["verbatim"] or 0), 1.0) for row in rows]
    notes = [f"{len(asked)} questions over {len(docs):,} passages, model {options.extra.model}; times in seconds"]
    if cold:
        notes.append(
            f"cold: `longreach ask` from process start to the printed answer, median {statistics.median(cold):.1f} s"
        )
    return Result(rows, bars, notes)


def row(spec: str, library: Library, asked: Sequence[str], answers: Sequence[Answer], pack: dict[str, Any]) -> Row:
    """Quality and latency of one way of answering."""
    right = [contained(answer.text, pack["answers"][query]) for query, answer in zip(asked, answers, strict=True)]
    cited = [
        (citation, citation.document in pack["qrels"][query])
        for query, answer in zip(asked, answers, strict=True)
        for citation in answer.citations
    ]
    verbatim = [library.get(c.document).text[c.start : c.end] == c.quote for c, _ in cited]
    found = [answer.found for answer in answers]
    return {
        "answer": spec,
        "answer_recall": round(statistics.mean(right), 3),
        "found": round(statistics.mean(found), 3),
        "recall_where_found": round(sum(right) / max(1, sum(found)), 3),
        "citation_precision": round(statistics.mean(gold for _, gold in cited), 3) if cited else None,
        "verbatim": statistics.mean(verbatim) if verbatim else None,
        "words": round(statistics.mean(len(answer.text.split()) for answer in answers), 1),
        "prompt_tokens": round(statistics.mean(answer.usage.prompt_tokens for answer in answers)),
        "reused_tokens": round(statistics.mean(answer.usage.reused_tokens for answer in answers)),
        "search_p50": round(statistics.median(answer.timing.search for answer in answers), 3),
        "ttft_p50": round(statistics.median(answer.timing.ttft for answer in answers), 2),
        "ttft_p90": round(statistics.quantiles([answer.timing.ttft for answer in answers], n=10)[8], 2),
        "total_p50": round(statistics.median(answer.timing.total for answer in answers), 2),
    }


def without_gold(path: Path, copy: Path, asked: Sequence[str], pack: dict[str, Any]) -> Library:
    """A copy of the library without any passage that holds an answer to one of these questions."""
    shutil.copytree(path, copy)
    library = Library.open(copy)
    answers = {query: pack["answers"][query] for query in asked}
    tell = {gold for query in asked for gold in pack["qrels"][query]}
    for info in library.documents():
        text = pack["docs"][info.id]
        if any(len(answer) > 3 and contained(text, [answer]) for golds in answers.values() for answer in golds):
            tell.add(info.id)
    library.remove(tell)
    return library


def cold_start(library: Path, question: str) -> float:
    """Seconds from starting a process to its printed answer."""
    command = [sys.executable, "-m", "longreach", "ask", "--json", "--library", str(library), question]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def contained(text: str, references: Sequence[str]) -> bool:
    """Whether a reference stands in the text, case, punctuation and articles aside (as in SQuAD's evaluation)."""
    return any(f" {plain(reference)} " in f" {plain(text)} " for reference in references)


def plain(text: str) -> str:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--answer", nargs="+", default=["extract", "generate"], help="specs of answerers")


if __name__ == "__main__":
    run("ask", measure, about=__doc__ or "", arguments=arguments)
