"""Lines of results as a table, and two runs side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from longreach.errors import InputError
from longreach.evaluate.metrics.efficiency import Cost, peak_kv_bytes
from longreach.evaluate.statistics import Difference, Estimate, compare, estimate, holm

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """One task in one configuration: the score and every metric with their intervals over examples, and medians of what
    an answer cost."""

    task: str
    configuration: Mapping[str, str]
    score: Estimate
    chance: float
    metrics: Mapping[str, Estimate]
    ttft: float
    total: float
    per_token: float | None
    prompt_tokens: float
    reused_tokens: float
    generated_tokens: float
    kv_bytes: int

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Run B less run A on one task; `corrected` is the p-value held against all tasks that were compared (Holm)."""

    task: str
    difference: Difference
    corrected: float

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def summarize(lines: Sequence[Line]) -> list[Summary]:
    """A summary for each task and configuration, in the order in which they first come."""
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line["kind"] == "example":
            groups[line["task"], repr(sorted(line["configuration"].items()))].append(line)
    return [_summary(group) for group in groups.values()]


def compare_runs(first: Sequence[Line], second: Sequence[Line]) -> list[Comparison]:
    """Paired differences for each task that both have, by the examples that both have done. Raises InputError where a
    run holds several configurations of a task, or there is nothing in common."""
    one, other = _by_task(first, "A"), _by_task(second, "B")
    shared = [task for task in one if task in other and one[task].keys() & other[task].keys()]
    if not shared:
        raise InputError("the two results have no example of a task in common: run the same task in both")
    differences = [compare(one[task], other[task]) for task in shared]
    corrected = holm([difference.p for difference in differences])
    return [Comparison(*row) for row in zip(shared, differences, corrected, strict=True)]


def _by_task(lines: Sequence[Line], name: str) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    configurations: dict[str, Mapping[str, str]] = {}
    for line in lines:
        if line["kind"] == "example":
            task = line["task"]
            if configurations.setdefault(task, line["configuration"]) != line["configuration"]:
                raise InputError(f"{name} holds several configurations of {task}: keep each in a file of its own")
            scores[task][_identity(line)] = float(line["score"])
    return dict(scores)


def _identity(line: Line) -> str:
    """An example by its id and what is wanted of it: the same text may be cut otherwise in another configuration, but
    not be about something else."""
    return repr((line["example"], [question["answers"] for question in line["questions"]]))


def _summary(lines: Sequence[Line]) -> Summary:
    asked = [question for line in lines for question in line["questions"]]
    costs = [Cost(**question["cost"]) for question in asked]
    names = dict.fromkeys(name for question in asked for name in question["scores"])
    later = [cost.per_token for cost in costs if cost.per_token is not None]
    return Summary(
        task=lines[0]["task"],
        configuration=lines[0]["configuration"],
        score=estimate([float(line["score"]) for line in lines]),
        chance=float(lines[0].get("chance", 0.0)),
        metrics={name: estimate(_per_example(lines, name)) for name in names},
        ttft=median(cost.ttft for cost in costs),
        total=median(cost.total for cost in costs),
        per_token=median(later) if later else None,
        prompt_tokens=fmean(cost.prompt_tokens for cost in costs),
        reused_tokens=fmean(cost.reused_tokens for cost in costs),
        generated_tokens=fmean(cost.generated_tokens for cost in costs),
        kv_bytes=peak_kv_bytes(costs),
    )


def _per_example(lines: Sequence[Line], name: str) -> list[float]:
    """One metric by example: the mean over its questions that have it."""
    found = [
        [question["scores"][name] for question in line["questions"] if name in question["scores"]] for line in lines
    ]
    return [fmean(scores) for scores in found if scores]
