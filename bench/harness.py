"""What every benchmark shares: its arguments, its table, its JSON.

A benchmark is a function from options to a `Result`; `run` does the rest:

    def measure(options: Options) -> Result:
        return Result(rows=[{"method": "x", "seconds": 0.1}], bars=[at_most("x", 0.1, 0.5)])

    if __name__ == "__main__":
        run("name", measure, about="What it measures.")
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from longreach.evaluate.provenance import environment

ROOT = Path(__file__).resolve().parent.parent
Row = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class Bar:
    """A value beside what it must reach."""

    name: str
    value: float
    bar: float
    holds: bool


def at_least(name: str, value: float, bar: float) -> Bar:
    """A bar that holds where `value` is not below it."""
    return Bar(name, value, bar, value >= bar)


def at_most(name: str, value: float, bar: float) -> Bar:
    """A bar that holds where `value` is not above it."""
    return Bar(name, value, bar, value <= bar)


@dataclass(frozen=True, slots=True)
class Result:
    """`rows` have the same keys, which become the table's columns; `notes` are printed under it; `more` are further
    tables by their titles."""

    rows: Sequence[Row]
    bars: Sequence[Bar] = ()
    notes: Sequence[str] = ()
    more: Mapping[str, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` asks for a run of less than a minute; `data` is the folder of evaluation data; `extra` holds the
    benchmark's own arguments."""

    quick: bool
    data: Path
    extra: argparse.Namespace = field(default_factory=argparse.Namespace)


def run(
    name: str,
    measure: Callable[[Options], Result],
    *,
    about: str,
    arguments: Callable[[argparse.ArgumentParser], object] | None = None,
) -> None:
    """Read the command line, measure, print the table and the bars, write the JSON.

    `arguments` may add the benchmark's own to the parser. Exits with 1 where a bar does not hold in a full run.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="under a minute; only a hint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment, rows and bars here")
    if arguments:
        arguments(parser)
    given = parser.parse_args()
    data = Path(os.environ.get("LONGREACH_DATA", ROOT.parent / "shared" / "data"))
    started = time.perf_counter()
    result = measure(Options(given.quick, data, given))
    seconds = time.perf_counter() - started
    report = {
        "benchmark": name,
        "quick": given.quick,
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
        "seconds": round(seconds, 1),
        "environment": environment(),
        "rows": list(result.rows),
        **({"more": {title: list(rows) for title, rows in result.more.items()}} if result.more else {}),
        "bars": [asdict(bar) for bar in result.bars],
        "notes": list(result.notes),
    }
    show(name, result, quick=given.quick)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not given.quick and not all(bar.holds for bar in result.bars):
        raise SystemExit(1)


def show(name: str, result: Result, *, quick: bool) -> None:
    """Print the tables, the bars and the notes."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    for title, rows in {name: result.rows, **result.more}.items():
        console.print(_table(title, rows))
    for bar in result.bars:
        verdict = "[green]holds[/]" if bar.holds else "[red]does not hold[/]"
        console.print(f"{bar.name}: {_cell(bar.value)} (bar {_cell(bar.bar)}) {verdict}")
    for note in [*result.notes, *(["quick run: only a hint"] if quick else [])]:
        console.print(note, style="dim", highlight=False)


def _table(title: str, rows: Sequence[Row]) -> Table:
    columns = list(rows[0]) if rows else []
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[column], int | float) or row[column] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
