"""How long 300 examples of a suite take on two cores.

Each task is run as `longreach eval` runs it, from an empty results file: making the examples, answering, scoring and
writing every line to the disk all count; loading the model does not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from harness import Options, Result, Row, at_least, at_most, run
from longreach.cli.eval_parts import Parts
from longreach.config import load_settings
from longreach.evaluate.report import summarize
from longreach.evaluate.results import Results
from longreach.evaluate.run import run as run_task

TASKS = ("niah_single(length=1024, n=300)", "corpus_qa(pack=nq_passages)")
EXAMPLES = 300
SECONDS = 15 * 60.0


def measure(options: Options) -> Result:
    specs = options.extra.tasks[:1] if options.quick else options.extra.tasks
    examples = 8 if options.quick else options.extra.examples
    parts = Parts(load_settings(model=options.extra.model), "text", "", "")
    with tempfile.TemporaryDirectory() as folder:
        try:
            parts.engine.generate(["Once"], max_tokens=2)  # what is compiled at the first token is not counted
            rows = [row(spec, parts, examples, Path(folder) / str(at)) for at, spec in enumerate(specs)]
        finally:
            parts.close()
    bars = []
    for each in rows:
        bars.append(
            at_most(f"{each['task']}: seconds of {EXAMPLES} examples", float(each["seconds_of_300"] or 0), SECONDS)
        )
        bars.append(at_least(f"{each['task']}: examples answered", float(each["examples"] or 0), float(examples)))
    return Result(rows, bars, [f"model {options.extra.model}"])


def row(spec: str, parts: Parts, examples: int, folder: Path) -> Row:
    """One task from its first example on."""
    task = parts.task(spec)
    respondent = parts.respondent(task)  # a library is made here, once for good
    with Results(folder / "results.jsonl") as results:
        began = time.perf_counter()
        lines = run_task(task, respondent, results, limit=examples)
        seconds = time.perf_counter() - began
    (summary,) = summarize(lines)
    tokens = [question["cost"]["prompt_tokens"] for line in lines for question in line["questions"]]
    return {
        "task": spec,
        "examples": len({line["key"] for line in lines}),
        "seconds": round(seconds, 1),
        "seconds_of_300": round(seconds * EXAMPLES / len(lines), 1),
        "score": round(summary.score.mean, 3),
        "low": round(summary.score.low, 3),
        "high": round(summary.score.high, 3),
        "prompt_tokens": round(sum(tokens) / len(tokens)),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--examples", type=int, default=EXAMPLES)


if __name__ == "__main__":
    run("eval_rate", measure, about=(__doc__ or "").splitlines()[0], arguments=arguments)
