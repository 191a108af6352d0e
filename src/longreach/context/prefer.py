"""Preferring what the model has read already, where it costs nothing in relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longreach.types import Hit

NEAR = 0.02
"""Scores count as level within this share of the distance from the best score of the list to the lowest."""


def prefer_kept(hits: Sequence[Hit], kept: Callable[[Sequence[Hit]], Sequence[bool]], near: float = NEAR) -> list[Hit]:
    """`hits`, best first, with those whose KV is at hand before those that are level with them.

    The list is walked down in runs: a run begins with the best hit left and holds all that are level with it. Within a
    run, kept hits come first and keep their order, as the others do; so none passes one that is better by more than
    `near`. `kept` is asked about hits that are level with others, and only about those.
    """
    runs = _runs([hit.score for hit in hits], near)
    level = [at for run in runs if len(run) > 1 for at in run]
    if not level:
        return list(hits)
    there = {at for at, held in zip(level, kept([hits[at] for at in level]), strict=True) if held}
    return [hits[at] for run in runs for at in sorted(run, key=lambda at: at not in there)]


def _runs(scores: Sequence[float], near: float) -> list[list[int]]:
    """The places of `scores`, best first, in runs of level ones."""
    reach = near * (max(scores) - min(scores)) if scores else 0.0
    runs: list[list[int]] = []
    for at, score in enumerate(scores):
        if runs and scores[runs[-1][0]] - score <= reach:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs
