"""Quality, latency and KV bytes of policies that keep less, on generated tasks of several lengths and in SCBench's
two modes, from one prefill for each context.

The bars say what must hold wherever the front lies: snapkv at budget 1.0 scores as the full cache does, example by
example, and at smaller ones takes no more bytes of the pool than its budget and the pages that were begun.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import Bar, Options, Result, Row, at_least, at_most, run
from longreach import Engine
from longreach.engine.paged import PagedEngine
from longreach.evaluate.figure import write_png
from longreach.evaluate.frontier import Mark, marks, undominated
from longreach.evaluate.grid import parse_grid
from longreach.evaluate.page import write_page
from longreach.evaluate.parquet import write_parquet
from longreach.evaluate.provenance import provenance
from longreach.evaluate.respond import settle
from longreach.evaluate.results import Results
from longreach.evaluate.run import label, shown
from longreach.evaluate.shared_prefill import SharedPrefill
from longreach.evaluate.sweep import Arm, sweep
from longreach.evaluate.tasks import Task, tasks

GRID = (
    "policy=full,snapkv(budget=1.0),snapkv(budget=0.1),snapkv(budget=0.2),snapkv(budget=0.4),snapkv(budget=0.7),"
    "streaming_heads(window=64..1024),page_select(budget=64..1024)"
)
QUICK = "policy=full,snapkv(budget=1.0),snapkv(budget=0.2),streaming_heads(window=128),page_select(budget=128)"
KINDS = (
    "niah_multikey(length={length}, keys=4)",
    "niah_multivalue(length={length})",
    "variable_tracking(length={length}, hops=2)",
    "qa_distractors(length={length})",
    "niah_multikey(length={length}, keys=4, questions=3, mode='multi_request')",
    "niah_multikey(length={length}, keys=4, questions=3, mode='multi_turn')",
)


def measure(options: Options) -> Result:
    engine = Engine.load(options.extra.model)
    if not isinstance(engine, PagedEngine):
        raise SystemExit(f"{options.extra.model} takes no KV policy: name a model that is loaded here")
    settle(engine)
    lengths = [512] if options.quick else options.extra.lengths
    limit = 2 if options.quick else options.extra.examples
    kinds = KINDS[:1] if options.quick else KINDS
    made = [tasks.make(kind.format(length=n), count=engine.count) for n in lengths for kind in kinds]
    if options.extra.keep:
        return measured(made, engine, options, limit, options.extra.keep)
    with tempfile.TemporaryDirectory() as folder:
        return measured(made, engine, options, limit, Path(folder))


def measured(made: list[Task], engine: PagedEngine, options: Options, limit: int, folder: Path) -> Result:
    """The sweep over all tasks, its table and its bars; `folder` keeps results and figures."""
    points = parse_grid(QUICK if options.quick else options.extra.grid, ("policy",)).points()
    source = SharedPrefill(engine)
    found: list[Mark] = []
    lines, bars = [], []
    with Results(folder / "results.jsonl") as results:
        for task in made:
            arms = [Arm(point, source) for point in points]
            sweep(task, arms, results, limit=limit, rule=undominated)
            found += marks(label(task), arms)
            bars += list(limits(shown(label(task)), arms))
            lines += [line for arm in arms for line in arm.lines]
    told = provenance()
    write_parquet(folder / "results.parquet", lines, told)
    write_png(folder / "frontier.png", found)
    write_page(folder / "frontier.html", found, told)
    return Result([row(mark) for mark in found], bars, [f"model {engine.model}; every context was read once for all"])


def limits(task: str, arms: list[Arm]) -> Iterator[Bar]:
    """What must hold on a task, by the examples that both arms have."""
    by_policy = {arm.point["policy"]: arm for arm in arms}
    full, all_kept = by_policy.get("full"), by_policy.get("snapkv(budget=1.0)")
    if full is None:
        return
    if all_kept is not None:
        shared = [name for name in full.scores if name in all_kept.scores]
        alike = sum(full.scores[name] == all_kept.scores[name] for name in shared) / len(shared)
        yield at_least(f"{task}: examples that snapkv(budget=1.0) scores as full does", alike, 1.0)
    for policy, arm in by_policy.items():
        if policy.startswith("snapkv") and (budget := float(policy.split("=")[1].rstrip(")"))) < 1:
            # Beside the budget each stream has a begun page of each of two segments, and room for the answer.
            room = 6 * 16 / _tokens(full)
            yield at_most(f"{task}: bytes of {policy} / full", arm.kv_bytes / full.kv_bytes, budget + room)


def row(mark: Mark) -> Row:
    """A line of the table."""
    return {
        "configuration": mark.name.removeprefix("policy="),
        "task": shown(mark.task),
        "score": round(mark.score.mean, 3),
        "low": round(mark.score.low, 3),
        "high": round(mark.score.high, 3),
        "n": mark.score.n,
        "ttft_s": round(mark.ttft, 3),
        "kv_bytes": mark.kv_bytes,
        "front": mark.best,
        "stopped": mark.stopped,
    }


def _tokens(arm: Arm) -> float:
    """The tokens of the shortest prompt."""
    return float(min(question["cost"]["prompt_tokens"] for line in arm.lines for question in line["questions"]))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8192])
    parser.add_argument("--examples", type=int, default=50, help="of each task")
    parser.add_argument("--grid", default=GRID, help="policies, as longreach eval --sweep takes them")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep results and figures here, and go on from there")


if __name__ == "__main__":
    run("frontier", measure, about=(__doc__ or "").splitlines()[0], arguments=arguments)
