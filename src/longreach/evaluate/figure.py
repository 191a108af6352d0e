"""The frontier as a picture: for each task quality against memory and, where it is told, against the time to the first
token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longreach.evaluate.families import colours, family
from longreach.evaluate.frontier import Mark
from longreach.evaluate.run import shown


def write_png(file: Path, marks: Sequence[Mark]) -> None:
    """Write the picture: a row of two panels a task, or a panel a task where no times are told; filled marks are on the
    front, crosses were stopped early."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(mark.task for mark in marks))
    timed = any(mark.ttft is not None for mark in marks)
    rows = len(tasks) if timed else -(-len(tasks) // 2)
    figure = Figure(figsize=(11, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    palette = colours(marks)
    panels = list(figure.subplots(rows, 2, squeeze=False).flat)
    for at, task in enumerate(tasks):
        own = [mark for mark in marks if mark.task == task]
        panel = panels[2 * at if timed else at]
        _panel(panel, own, [mark.kv_bytes / 1e6 for mark in own], palette, "KV of an answer, MB")
        panel.set_title(shown(task), loc="left", fontsize=9)
        if timed:
            _panel(panels[2 * at + 1], own, [mark.ttft or 0.0 for mark in own], palette, "time to the first token, s")
    for panel in panels[len(tasks) :] if not timed else ():
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=140)


def _panel(axes: Any, marks: Sequence[Mark], costs: Sequence[float], palette: dict[str, str], title: str) -> None:
    for name, colour in palette.items():
        chosen = [(mark, cost) for mark, cost in zip(marks, costs, strict=True) if family(mark) == name]
        axes.plot([], [], "o", color=colour, label=name)
        for mark, cost in chosen:
            shape = "x" if mark.stopped else "o"
            filled = colour if mark.best or mark.stopped else "none"
            width = [[mark.score.mean - mark.score.low], [mark.score.high - mark.score.mean]]
            axes.errorbar(cost, mark.score.mean, yerr=width, fmt="none", ecolor=colour, alpha=0.35, linewidth=1)
            axes.plot(cost, mark.score.mean, shape, color=colour, markerfacecolor=filled, markersize=6)
    edge = sorted((cost, mark.score.mean) for mark, cost in zip(marks, costs, strict=True) if mark.best)
    steps: list[tuple[float, float]] = []
    for cost, score in edge:
        if not steps or score > steps[-1][1]:
            steps.append((cost, score))
    axes.step([cost for cost, _ in steps], [score for _, score in steps], where="post", color="#999999", linewidth=1)
    axes.set_xlabel(title)
    axes.set_ylabel("score")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(0, 1.06 * max(costs) or 1)
    axes.grid(alpha=0.2)
