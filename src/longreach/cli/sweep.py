"""`longreach eval TASK ... --sweep GRID`: a grid of configurations, its table and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from longreach.cli.common import err, note, out, shown_path
from longreach.errors import InputError

if TYPE_CHECKING:
    from longreach.cli.eval_parts import Parts
    from longreach.evaluate.frontier import Mark
    from longreach.evaluate.grid import Grid
    from longreach.evaluate.results import Results
    from longreach.evaluate.sweep import Arm, Rule
    from longreach.evaluate.tasks import Task


def sweep_tasks(specs: Sequence[str], parts: Parts, grid: Grid, folder: Path, limit: int | None) -> list[Mark]:
    """Run every task over the grid, in `folder`; print the table and write `results.jsonl`, `results.parquet`,
    `frontier.png` and `frontier.html`."""
    from longreach.evaluate.figure import write_png
    from longreach.evaluate.frontier import marks, undominated
    from longreach.evaluate.page import write_page
    from longreach.evaluate.parquet import write_parquet
    from longreach.evaluate.provenance import provenance
    from longreach.evaluate.results import Results
    from longreach.evaluate.run import label

    found: list[Mark] = []
    lines = []
    with Results(folder / "results.jsonl") as results:
        try:
            for task in [parts.task(spec) for spec in specs]:
                arms = run_arms(task, parts, grid, results, limit, undominated)
                found += marks(label(task), arms)
                lines += [line for arm in arms for line in arm.lines]
        finally:
            parts.close()
    told = provenance()
    write_parquet(folder / "results.parquet", lines, told)
    write_png(folder / "frontier.png", found)
    write_page(folder / "frontier.html", found, told)
    show_marks(found)
    note(f"results.parquet, frontier.png and frontier.html: {shown_path(str(folder.absolute()))}")
    return found


def run_arms(
    task: Task, parts: Parts, grid: Grid, results: Results, limit: int | None, rule: Rule, first: int | None = None
) -> list[Arm]:
    """Every point of the grid on one task, under a bar that shows how many answers there are and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from longreach.evaluate.run import label
    from longreach.evaluate.sweep import FIRST, Arm, sweep

    points = grid.points()
    sources = parts.sources(task, points)
    arms = [Arm(point, source) for point, source in zip(points, sources, strict=True)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    taken = 0
    with Progress(*columns, console=err, transient=True, speed_estimate_period=600) as bar:
        shown = bar.add_task(f"{label(task).partition('(')[0]}, {len(arms)} arms", total=None)

        def show(done: int, total: int, fresh: bool) -> None:
            nonlocal taken
            taken += not fresh
            bar.update(shown, completed=done, total=total)

        done = sweep(task, arms, results, limit=limit, rule=rule, first=first or FIRST, progress=show)
    if taken:
        note(f"{taken:,} of {done:,} answers were there before")
    if not done:
        raise InputError(f"{label(task)} has no example")
    return arms


def show_marks(found: Sequence[Mark]) -> None:
    """A table for each task, best first."""
    from longreach.evaluate.run import shown

    for task in dict.fromkeys(mark.task for mark in found):
        table = Table(title=escape(shown(task)), title_justify="left", box=SIMPLE)
        for title in ("", "configuration", "score", "95 % interval", "n", "TTFT s", "KV MB"):
            table.add_column(title, justify="left" if title in ("", "configuration") else "right", overflow="fold")
        own = [mark for mark in found if mark.task == task]
        for mark in sorted(own, key=lambda mark: (-mark.score.mean, mark.kv_bytes)):
            table.add_row(
                "★" if mark.best else "×" if mark.stopped else "",
                escape(mark.name),
                f"{mark.score.mean:.3f}",
                f"{mark.score.low:.3f} to {mark.score.high:.3f}",
                f"{mark.score.n:,}",
                "" if mark.ttft is None else f"{mark.ttft:.3f}",
                f"{mark.kv_bytes / 1e6:,.2f}",
            )
        out.print(table)
    note("★ is on the front: nothing else is as good in score, time and memory; × was stopped early")
