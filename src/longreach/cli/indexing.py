"""Adding paths to a library with a progress bar, and saying what was done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from longreach.cli.common import err, note, shown_path

if TYPE_CHECKING:
    from longreach.library import AddReport, Library
    from longreach.library.values import Progress as Step
    from longreach.types import Metadata

SHOWN = 10
"""How many skipped files are named before the rest is only counted."""


def add(library: Library, paths: Sequence[Path], metadata: Metadata | None = None) -> AddReport:
    """Add `paths` while a bar on standard error shows documents, rate and time left; gone when done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("reading", total=None, rate="")

        def show(step: Step) -> None:
            if step.message:
                bar.update(task, description=escape(step.message))
                return
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            rate = f"{speed:,.0f} docs/s" if speed else ""
            bar.update(task, description="indexing", completed=step.done, total=step.total or None, rate=rate)

        return library.add(paths, metadata=metadata, progress=show)


def summary(report: AddReport) -> str:
    """One line: what an `add` did."""
    counts = [
        (report.added, "added"),
        (report.updated, "updated"),
        (report.removed, "removed"),
        (report.unchanged, "unchanged"),
        (len(report.skipped), "skipped"),
    ]
    parts = [f"{count:,} {what}" for count, what in counts if count]
    return f"{', '.join(parts) or 'nothing to do'} in {report.seconds:.1f} s"


def name_skipped(report: AddReport) -> None:
    """Name the skipped files and why."""
    for path, reason in report.skipped[:SHOWN]:
        note(f"  skipped {shown_path(path)}: {reason.removeprefix(f'cannot read {path}: ')}")
    if len(report.skipped) > SHOWN:
        note(f"  … and {len(report.skipped) - SHOWN:,} more; `longreach index --json` names them all")


def why_nothing(report: AddReport, paths: Sequence[Path]) -> str:
    """Of paths that gave nothing: which they are, and why."""
    where = ", ".join(shown_path(str(path)) for path in paths)
    why = f"all {len(report.skipped)} files were skipped" if report.skipped else "there are no files to read"
    return f"{where}: {why}"
