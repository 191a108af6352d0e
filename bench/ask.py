"""From question to cited answer on Natural Questions passages: is it right, is it cited rightly, and how soon does it
come?

The questions are 200 that no choice in the project was made on. "Removed" asks questions whose gold passages were
taken out of the library: the right answer is that the documents do not tell. "Docs" asks about this project's own
documentation, half of it what no page tells (`docs_questions.jsonl`). Answerers that refuse below a score are also
shown at other values of it (`--least`), from the same answers.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness import ROOT, Options, Result, Row, at_least, run
from longreach import Engine, Library, Reader
from longreach.answer import answerers
from longreach.config import load_settings
from longreach.evaluate.metrics.answers import any_answer, contained
from longreach.reader import NOT_TOLD
from longreach.types import Answer, Document

UNTOUCHED = 400
"""Questions of the seeded shuffle that were looked at while the prompts were written."""
QUESTIONS = ROOT / "bench" / "docs_questions.jsonl"


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
        some = asked[: 2 if options.quick else options.extra.removed]
        removed = without_gold(path, Path(folder) / "removed.library", some, pack)
        manual = Library.open(Path(folder) / "docs.library", create=True, cache=settings.cache)
        manual.add([ROOT / "docs"])
        posed = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
        posed = posed[::8] if options.quick else posed
        rows: list[Row] = []
        for spec in options.extra.answer:
            given = {"answer": spec, "least_relevance": options.extra.least_relevance}
            reader = Reader(library, engine, **given)
            reader.ask("What is this?")  # the first forward of a process pays for set-up
            answers = [reader.ask(pack["queries"][query]) for query in asked]
            without = [Reader(removed, engine, **given).ask(pack["queries"][query]) for query in some]
            told = [Reader(manual, engine, **given).ask(question["question"]) for question in posed]
            for name, raised in at_each_least(spec, options.extra.least):
                kept = [raised(answer) for answer in answers]
                rows.append(
                    {
                        **row(name, library, asked, kept, pack),
                        "removed_refused": refusals([raised(answer) for answer in without]),
                        **of_docs(posed, [raised(answer) for answer in told]),
                    }
                )
        for opened in (library, removed, manual):
            opened.close()
        cold = (
            [] if options.quick else [cold_start(path, pack["queries"][query]) for query in asked[: options.extra.cold]]
        )
    bars = [at_least(f"verbatim quotes, {row['answer']}", float(row["verbatim"] or 0), 1.0) for row in rows]
    notes = [f"{len(asked)} questions over {len(docs):,} passages, model {options.extra.model}; times in seconds"]
    if cold:
        notes.append(
            f"cold: `longreach ask` from process start to the printed answer, median {statistics.median(cold):.1f} s"
        )
    return Result(rows, bars, notes)


def row(spec: str, library: Library, asked: Sequence[str], answers: Sequence[Answer], pack: dict[str, Any]) -> Row:
    """Quality and latency of one way of answering."""
    right = [any_answer(answer.text, pack["answers"][query]) for query, answer in zip(asked, answers, strict=True)]
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


def at_each_least(spec: str, values: Sequence[float]) -> list[tuple[str, Callable[[Answer], Answer]]]:
    """The spec as it is, and with each of `values` above its own `least`: what each would have made of an answer."""
    own = getattr(answerers.make(spec), "least", None)
    higher = [least for least in values if own is not None and least > own]
    return [
        (spec, lambda answer: answer),
        *((f"{spec}, least={least:g}", partial(refused_below, rise=least - own)) for least in higher),
    ]


def refused_below(answer: Answer, rise: float) -> Answer:
    """The answer as it were with a `least` higher by `rise`. A quote's score is logistic in what is above `least`."""
    if answer.found and math.log(answer.citations[0].score / (1 - answer.citations[0].score)) >= rise:
        return answer
    return replace(answer, text=NOT_TOLD, found=False, citations=[])


def refusals(answers: Sequence[Answer]) -> float:
    """The share that was refused."""
    return round(statistics.mean(not answer.found for answer in answers), 3)


def of_docs(posed: Sequence[dict[str, Any]], answers: Sequence[Answer]) -> Row:
    """Of the questions about the documentation: those it answers, right or refused; those it does not, refused."""
    pairs = list(zip(posed, answers, strict=True))
    told = [(question, answer) for question, answer in pairs if question["answers"]]
    return {
        "docs_right": round(statistics.mean(any_answer(a.text, q["answers"]) for q, a in told), 3),
        "docs_told_refused": refusals([answer for _, answer in told]),
        "docs_untold_refused": refusals([answer for question, answer in pairs if not question["answers"]]),
    }


def without_gold(path: Path, copy: Path, asked: Sequence[str], pack: dict[str, Any]) -> Library:
    """A copy of the library without any passage that holds an answer to one of these questions."""
    shutil.copytree(path, copy)
    library = Library.open(copy)
    answers = {query: pack["answers"][query] for query in asked}
    tell = {gold for query in asked for gold in pack["qrels"][query]}
    for info in library.documents():
        text = pack["docs"][info.id]
        if any(len(answer) > 3 and contained(text, answer) for golds in answers.values() for answer in golds):
            tell.add(info.id)
    library.remove(tell)
    return library


def cold_start(library: Path, question: str) -> float:
    """Seconds from starting a process to its printed answer."""
    command = [sys.executable, "-m", "longreach", "ask", "--json", "--library", str(library), question]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--removed", type=int, default=50, help="how many to ask again without their gold passages")
    parser.add_argument("--cold", type=int, default=3, help="how many processes to start for the cold figure")
    parser.add_argument("--least-relevance", type=float, default=0.4, help="the reader's; -1 reads all hits")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--answer", nargs="+", default=["rank_spans", "generate(max_tokens=48)"], help="specs")
    parser.add_argument("--least", nargs="*", type=float, default=[3.5, 4.5], help="refuse below these scores as well")


if __name__ == "__main__":
    run("ask", measure, about=__doc__ or "", arguments=arguments)
