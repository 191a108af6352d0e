"""What `longreach eval` prints: scores with what they cost, and two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from longreach.cli.common import note, out
from longreach.evaluate.report import Comparison, Summary
from longreach.evaluate.run import shown
from longreach.evaluate.stages import STAGES


def show_summaries(summaries: Sequence[Summary]) -> None:
    """A row for each task and configuration, and below it what it was run with."""
    table = Table(box=SIMPLE)
    for title in ("task", "score", "95 % interval", "n", "TTFT s", "TPOT ms", "KV MB"):
        _column(table, title)
    for each in summaries:
        table.add_row(
            shown(each.task),
            f"{each.score.mean:.3f}",
            f"{each.score.low:.3f} to {each.score.high:.3f}",
            f"{each.score.n:,}",
            f"{each.ttft:.3f}",
            "" if each.per_token is None else f"{1000 * each.per_token:.1f}",
            f"{each.kv_bytes / 1e6:,.1f}",
        )
    out.print(table)
    for each in summaries:
        columns = ", ".join(f"{key} {value}" for key, value in each.configuration.items())
        guessing = f"guessing scores {each.chance:.2f}; " if each.chance else ""
        note(
            f"{each.task.partition('(')[0]}: {guessing}{each.prompt_tokens:,.0f} prompt tokens, "
            f"{each.reused_tokens:,.0f} reused; {columns}"
        )
        lost = {stage: each.metrics[f"lost_{stage}"].mean for stage in STAGES if f"lost_{stage}" in each.metrics}
        if lost:
            out.print("lost: " + ", ".join(f"{share:.0%} in {stage}" for stage, share in lost.items()))
        if len(each.metrics) > 1:
            note("  " + ", ".join(f"{name} {value}" for name, value in each.metrics.items()))


def show_comparisons(found: Sequence[Comparison]) -> None:
    """A row for each task: B less A."""
    table = Table(title="B less A", title_justify="left", box=SIMPLE)
    for title in ("task", "A", "B", "difference", "95 % interval", "n", "p", "p, Holm"):
        _column(table, title)
    for each in found:
        table.add_row(shown(each.task), *_compared(each))
    out.print(table)


def _column(table: Table, title: str) -> None:
    first = title == "task"
    table.add_column(
        title, justify="left" if first else "right", overflow="fold", no_wrap=not first, min_width=16 if first else None
    )


def _compared(each: Comparison) -> list[str]:
    change = each.difference.difference
    return [
        f"{each.difference.first:.3f}",
        f"{each.difference.second:.3f}",
        f"{change.mean:+.3f}",
        f"{change.low:+.3f} to {change.high:+.3f}",
        f"{change.n:,}",
        f"{each.difference.p:.3f}",
        f"{each.corrected:.3f}",
    ]
