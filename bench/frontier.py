"""Quality, latency and KV bytes of policies that keep less, on generated tasks of several lengths and in SCBench's
two modes, from one prefill for each context.

`--keep` makes it go on where it was; `--table` answers nothing more and shows what is there. Times to the first token
are told where `--timed` asks for them: those of the first few examples of the first task of each length, which must
have run on a quiet machine. The bars say what must hold wherever the front lies: snapkv at budget 1.0 scores as the
full cache does, example by example, at smaller ones it takes no more bytes of the pool than its budget and the pages
that were begun, and with `--kvpress` it and streaming_heads score as kvpress's do.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from frontier_rivals import Rival, agreement, dump, read_rivals, rival_rows
from harness import Bar, Options, Result, Row, at_least, at_most, run
from longreach import Engine
from longreach.engine.paged import PagedEngine
from longreach.evaluate.figure import write_png
from longreach.evaluate.frontier import SLACK, Mark, front, marks
from longreach.evaluate.grid import Point, parse_grid
from longreach.evaluate.page import write_page
from longreach.evaluate.parquet import write_parquet
from longreach.evaluate.provenance import provenance
from longreach.evaluate.respond import Response, settle
from longreach.evaluate.results import Results, read_results
from longreach.evaluate.run import shown
from longreach.evaluate.shared_prefill import FULL, SharedPrefill
from longreach.evaluate.sweep import Arm, sweep
from longreach.evaluate.tasks import tasks
from longreach.kv.policies import policies
from longreach.registry import canonical, parse

Line: TypeAlias = dict[str, Any]
GRID = (
    "policy=full,snapkv(budget=1.0),snapkv(budget=0.1),snapkv(budget=0.2),snapkv(budget=0.4),snapkv(budget=0.7),"
    "streaming_heads(window=64..1024),page_select(budget=64..1024)"
)
QUICK = "policy=full,snapkv(budget=1.0),snapkv(budget=0.2),streaming_heads(window=128),page_select(budget=128)"
KINDS = (
    "niah_multikey(length={length}, keys=4)",
    "variable_tracking(length={length}, hops=1)",
    "niah_multikey(length={length}, keys=4, questions=2, mode='multi_request')",
    "niah_multikey(length={length}, keys=4, questions=2, mode='multi_turn')",
)
LONG_KINDS = ("niah_multikey(length={length}, keys=4)", "niah_single(length={length})")
LONG = 4096
"""From here on fewer kinds are asked."""
COMPARED = 2
"""So many kinds are given to kvpress too, from the first, of lengths below `LONG`."""


def measure(options: Options) -> Result:
    extra = options.extra
    lengths = [512] if options.quick else extra.lengths
    numbers = [2] if options.quick else [*extra.examples, *extra.examples[-1:] * len(lengths)]
    points = parse_grid(QUICK if options.quick else extra.grid, ("policy",)).points()
    rivals = read_rivals(extra.kvpress) if extra.kvpress else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = extra.keep or Path(temporary)
        if not extra.table:
            with Results(folder / "results.jsonl") as results:
                answer(points, list(zip(lengths, numbers, strict=False)), options, results)
        found = read_results(folder / "results.jsonl")
        lines = [line for line in found if line["kind"] == "example"]
        runs = [line for line in found if line["kind"] == "run"]
        pages = None if any(run.get("windows") for run in runs) else max(run.get("page", 16) for run in runs)
        return table(lines, points, rivals, extra.timed, folder, page=pages)


def answer(points: list[Point], sizes: list[tuple[int, int]], options: Options, results: Results) -> None:
    """Have every policy answer so many examples of each length and kind."""
    extra = options.extra
    engine = Engine.load(extra.model, dtype=extra.dtype)
    if not isinstance(engine, PagedEngine):
        raise SystemExit(f"{extra.model} takes no KV policy: name a model that is loaded here")
    settle(engine)
    kinds = {n: KINDS[:1] if options.quick else extra.kinds or (KINDS if n < LONG else LONG_KINDS) for n, _ in sizes}
    made = [
        (length, [tasks.make(kind.format(length=length), count=engine.count) for kind in kinds[length]], number)
        for length, number in sizes
    ]
    if extra.dump:
        compared = [(task, number) for length, some, number in made if length < LONG for task in some[:COMPARED]]
        dump(extra.dump, engine, compared)
    windows = [window for window in engine.bridge.shapes.windows if window]
    results.begin({**provenance(), "windows": windows, "page": engine.pool.page_size})
    source = SharedPrefill(engine)
    for _, some, number in made:
        for task in some:
            sweep(task, [Arm(point, source) for point in points], results, limit=number)


def table(
    lines: list[Line], points: list[Point], rivals: list[Rival], timed: int, folder: Path, *, page: int | None
) -> Result:
    """What the lines of results tell, its figures and its bars. `page`: the tokens of a page; None where some layers
    hold their window, whatever the policy, so that bytes do not follow the budget."""
    found: list[Mark] = []
    rows, bars, told = [], [], []
    times: dict[int, list[float | None]] = {}
    for task in dict.fromkeys(line["task"] for line in lines):
        arms = arms_of([line for line in lines if line["task"] == task], points)
        if not arms:
            continue
        length = dict(parse(task).named)["length"]
        times.setdefault(length, [time_of(arm, timed) if timed else None for arm in arms])
        own = timely(marks(task, arms), times[length])
        found += own
        rows += [*map(row, own), *rival_rows(task, rivals)]
        bars += [*limits(shown(task), arms, page), *agreement(shown(task), arms, rivals)]
        told += [line for arm in arms for line in arm.lines]
    from_where = provenance()
    write_parquet(folder / "results.parquet", told, from_where)
    write_png(folder / "frontier.png", found)
    write_page(folder / "frontier.html", found, from_where)
    model = lines[0]["configuration"]["model"]
    if not timed:
        rows = [{name: value for name, value in each.items() if name != "ttft_s"} for each in rows]
        return Result(rows, bars, [f"model {model}; no times: the machine was not quiet"])
    return Result(rows, bars, [f"model {model}; times: the first {timed} examples of the first task of a length"])


def arms_of(lines: list[Line], points: list[Point]) -> list[Arm]:
    """The points with their lines, of those examples that all have answered; none where there is no such example."""
    by_policy: dict[str, dict[str, Line]] = {}
    for line in lines:
        by_policy.setdefault(line["configuration"]["policy"], {})[line["example"]] = line
    own = [by_policy.get(in_full(point["policy"]), {}) for point in points]
    shared = [example for example in own[0] if all(example in each for each in own)]
    return (
        [Arm(p, Done(), [e[example] for example in shared]) for p, e in zip(points, own, strict=True)] if shared else []
    )


def in_full(policy: str) -> str:
    """A policy as lines name it."""
    return policy if policy == FULL else canonical(policies, policies.make(policy))


def time_of(arm: Arm, timed: int) -> float:
    """The median time to the first token over the first examples."""
    return median(question["cost"]["ttft"] for line in arm.lines[:timed] for question in line["questions"])


def timely(found: list[Mark], times: list[float | None]) -> list[Mark]:
    """The marks with these times in place of their own, and the front that they make; of scores and bytes alone where
    there are none."""
    timed = [replace(mark, ttft=ttft) for mark, ttft in zip(found, times, strict=True)]
    best = front([(mark.score.mean, mark.ttft or 0.0, mark.kv_bytes) for mark in timed], SLACK)
    return [replace(mark, best=on) for mark, on in zip(timed, best, strict=True)]


class Done:
    """Who answered is gone; what was answered is there."""

    def columns(self, point: Point) -> dict[str, str]:
        return dict(point)

    def respond(self, example: object, points: object) -> Iterator[list[Response]]:
        raise AssertionError("nothing is answered any more")


def limits(task: str, arms: list[Arm], page: int | None) -> Iterator[Bar]:
    """What must hold on a task, by the examples that both arms have; of bytes only where they follow the budget."""
    by_policy = {arm.point["policy"]: arm for arm in arms}
    full, all_kept = by_policy.get("full"), by_policy.get("snapkv(budget=1.0)")
    if full is None:
        return
    if all_kept is not None:
        shared = [name for name in full.scores if name in all_kept.scores]
        alike = sum(full.scores[name] == all_kept.scores[name] for name in shared) / len(shared)
        yield at_least(f"{task}: examples that snapkv(budget=1.0) scores as full does", alike, 1.0)
    for policy, arm in by_policy.items():
        if policy.startswith("snapkv") and page and (budget := float(policy.split("=")[1].rstrip(")"))) < 1:
            # Beside the budget each stream has a begun page of each of two segments, and room for the answer.
            room = 6 * page / _tokens(full)
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
        "ttft_s": None if mark.ttft is None else round(mark.ttft, 3),
        "kv_bytes": mark.kv_bytes,
        "front": mark.best,
    }


def _tokens(arm: Arm) -> float:
    """The tokens of the shortest prompt."""
    return float(min(question["cost"]["prompt_tokens"] for line in arm.lines for question in line["questions"]))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded")
    parser.add_argument(
        "--dtype", default="auto", help="float32 leaves the weights as they are: no rounding but its own"
    )
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8000])
    parser.add_argument(
        "--examples", nargs="+", type=int, default=[50], help="of each task; one number for each length"
    )
    parser.add_argument("--kinds", nargs="+", help="specs of tasks with {length} in them, in place of the usual ones")
    parser.add_argument("--timed", type=int, default=0, help="so many examples of each length tell the times")
    parser.add_argument("--grid", default=GRID, help="policies, as longreach eval --sweep takes them")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep results and figures here, and go on from there")
    parser.add_argument("--table", action="store_true", help="answer nothing more: the table of what --keep holds")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write examples and model for frontier_kvpress.py")
    parser.add_argument("--kvpress", type=Path, metavar="FILE", help="the answers that frontier_kvpress.py wrote")


if __name__ == "__main__":
    run("frontier", measure, about=(__doc__ or "").splitlines()[0], arguments=arguments)
