"""Quality, latency and KV bytes of policies that keep less, on generated tasks of several lengths and in SCBench's
two modes, from one prefill for each context.

Scores and bytes come from answers that grow in the same steps; times to the first token from requests by themselves, a
few for each length. `--keep` makes it go on where it was; `--table` answers nothing more and shows what is there.
The bars say what must hold wherever the front lies: snapkv at budget 1.0 scores as the full cache does, example by
example, at smaller ones it takes no more bytes of the pool than its budget and the pages that were begun, and with
`--kvpress` it scores as kvpress's does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

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
from longreach.evaluate.respond import settle
from longreach.evaluate.results import Results
from longreach.evaluate.run import label, shown
from longreach.evaluate.shared_prefill import SharedDecode, SharedPrefill
from longreach.evaluate.sweep import Arm, Source, sweep
from longreach.evaluate.tasks import Task, tasks

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


def measure(options: Options) -> Result:
    extra = options.extra
    engine = Engine.load(extra.model)
    if not isinstance(engine, PagedEngine):
        raise SystemExit(f"{extra.model} takes no KV policy: name a model that is loaded here")
    settle(engine)
    lengths = [512] if options.quick else extra.lengths
    numbers = [2] if options.quick else [*extra.examples, *extra.examples[-1:] * len(lengths)]
    kinds = {n: KINDS[:1] if options.quick else extra.kinds or (KINDS if n < LONG else LONG_KINDS) for n in lengths}
    made = [
        (tasks.make(kind.format(length=length), count=engine.count), length, number)
        for length, number in zip(lengths, numbers, strict=False)
        for kind in kinds[length]
    ]
    if extra.dump:
        dump(extra.dump, engine, [(task, number) for task, length, number in made if length < LONG][:2])
    rivals = read_rivals(extra.kvpress) if extra.kvpress else []
    with tempfile.TemporaryDirectory() as folder:
        return measured(made, engine, options, rivals, extra.keep or Path(folder))


def measured(
    made: list[tuple[Task, int, int]], engine: PagedEngine, options: Options, rivals: list[Rival], folder: Path
) -> Result:
    """The sweep over all tasks, its table and its bars; `folder` keeps results and figures."""
    points = parse_grid(QUICK if options.quick else options.extra.grid, ("policy",)).points()
    found: list[Mark] = []
    rows, bars, lines, alike = [], [], [], []
    with Results(folder / "results.jsonl") as results:
        timed = times(made, engine, points, options, results)
        for task, length, number in made:
            source = SharedDecode(engine)
            number = there(task, points, source, results) if options.extra.table else number
            if not number:
                continue
            arms = [Arm(point, source) for point in points]
            sweep(task, arms, results, limit=number)
            own = timely(marks(label(task), arms), timed.get(length, []))
            found += own
            rows += [row(mark, length in timed) for mark in own]
            rows += rival_rows(shown(label(task)), label(task), rivals)
            bars += [*limits(shown(label(task)), arms), *agreement(shown(label(task)), arms, rivals)]
            lines += [line for arm in arms for line in arm.lines]
        for arm, other in pairs(timed, lines):
            alike += [other[example] == score for example, score in arm.scores.items() if example in other]
    told = provenance()
    if not found:
        return Result([], [], ["nothing was answered, only timed"])
    write_parquet(folder / "results.parquet", lines, told)
    write_png(folder / "frontier.png", found)
    write_page(folder / "frontier.html", found, told)
    notes = [f"model {engine.model}; every context was read once for all"]
    if alike:
        notes.append(f"answers by themselves and in shared steps score alike in {sum(alike)} of {len(alike)} cases")
    return Result(rows, bars, notes)


def times(
    made: list[tuple[Task, int, int]], engine: PagedEngine, points: list[Point], options: Options, results: Results
) -> dict[int, list[Arm]]:
    """For each length, every point on the first task of that length, each request by itself."""
    found: dict[int, list[Arm]] = {}
    for task, length, _ in made:
        if length in found:
            continue
        source = SharedPrefill(engine)
        number = there(task, points, source, results) if options.extra.table else options.extra.times
        if number:
            found[length] = [Arm(point, source) for point in points]
            sweep(task, found[length], results, limit=number)
    return found


def there(task: Task, points: list[Point], source: Source, results: Results) -> int:
    """How many examples of a task all points have answered."""
    name = label(task)
    columns = [dict(source.columns(point)) for point in points]
    done = [line["configuration"] for line in results.lines if line["task"] == name]
    return min(done.count(each) for each in columns)


def timely(found: list[Mark], arms: list[Arm]) -> list[Mark]:
    """The marks with the times of `arms` in place of their own, and the front that these make."""
    if not arms:
        return found
    timed = [replace(mark, ttft=arm.ttft) for mark, arm in zip(found, arms, strict=True)]
    best = front([(mark.score.mean, mark.ttft, mark.kv_bytes) for mark in timed], SLACK)
    return [replace(mark, best=on) for mark, on in zip(timed, best, strict=True)]


def pairs(timed: Mapping[int, list[Arm]], lines: list[Mapping[str, object]]) -> Iterator[tuple[Arm, dict[str, float]]]:
    """Each arm that was timed with the scores that its policy has among `lines`, on the same task."""
    for arm in (arm for arms in timed.values() for arm in arms):
        task = arm.lines[0]["task"]
        policy = arm.lines[0]["configuration"]["policy"]
        same = [line for line in lines if line["task"] == task and line["configuration"]["policy"] == policy]  # type: ignore[index]
        yield arm, {str(line["example"]): float(line["score"]) for line in same}  # type: ignore[arg-type]


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


def row(mark: Mark, timed: bool) -> Row:
    """A line of the table."""
    return {
        "configuration": mark.name.removeprefix("policy="),
        "task": shown(mark.task),
        "score": round(mark.score.mean, 3),
        "low": round(mark.score.low, 3),
        "high": round(mark.score.high, 3),
        "n": mark.score.n,
        "ttft_s": round(mark.ttft, 3) if timed else None,
        "kv_bytes": mark.kv_bytes,
        "front": mark.best,
    }


def _tokens(arm: Arm) -> float:
    """The tokens of the shortest prompt."""
    return float(min(question["cost"]["prompt_tokens"] for line in arm.lines for question in line["questions"]))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8000])
    parser.add_argument(
        "--examples", nargs="+", type=int, default=[50], help="of each task; one number for each length"
    )
    parser.add_argument("--kinds", nargs="+", help="specs of tasks with {length} in them, in place of the usual ones")
    parser.add_argument("--times", type=int, default=3, help="examples of each length that are timed")
    parser.add_argument("--grid", default=GRID, help="policies, as longreach eval --sweep takes them")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep results and figures here, and go on from there")
    parser.add_argument("--table", action="store_true", help="answer nothing more: the table of what --keep holds")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write examples and model for frontier_kvpress.py")
    parser.add_argument("--kvpress", type=Path, metavar="FILE", help="the answers that frontier_kvpress.py wrote")


if __name__ == "__main__":
    run("frontier", measure, about=(__doc__ or "").splitlines()[0], arguments=arguments)
