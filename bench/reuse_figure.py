"""Fidelity against the time to the first token, every method on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXACT = 1e-4
"""Where methods that lose nothing are drawn."""
_SHAPES = "osD^vP*X<>phd8H1"


@dataclass(frozen=True, slots=True)
class Point:
    """A method on one kind of prompt: `share` of the full prefill's time to the first token, mean KL in nats."""

    prompts: str
    method: str
    share: float
    kl: float


def write_png(file: Path, points: Sequence[Point]) -> None:
    """Write the picture: a colour for each kind of prompt, a shape for each method."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kinds = list(dict.fromkeys(point.prompts for point in points))
    methods = list(dict.fromkeys(point.method for point in points))
    colours = colormaps["tab10"]
    for point in points:
        shape, colour = _SHAPES[methods.index(point.method) % len(_SHAPES)], colours(kinds.index(point.prompts) % 10)
        axes.plot(point.share, max(point.kl, EXACT), shape, color=colour, alpha=0.8)
    for at, method in enumerate(methods):
        axes.plot([], [], _SHAPES[at % len(_SHAPES)], color="#555555", label=method)
    for at, kind in enumerate(kinds):
        axes.plot([], [], "s", color=colours(at % 10), label=kind)
    axes.axhline(0.05, color="#999999", linewidth=1, linestyle="--")
    axes.axvline(1 / 2.2, color="#999999", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("time to the first token, of the full prefill's")
    axes.set_ylabel(f"mean KL to the full prefill, nats (at {EXACT:g}: exact)")
    axes.grid(alpha=0.2)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=140)
