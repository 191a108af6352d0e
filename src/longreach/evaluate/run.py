"""Running a task: each example once, its line written when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice
from statistics import fmean
from typing import Any

from longreach.errors import InputError
from longreach.evaluate.metrics.judge import Judge
from longreach.evaluate.provenance import provenance
from longreach.evaluate.respond import Respondent, Response, start_afresh
from longreach.evaluate.results import Results, key_of
from longreach.evaluate.score import score
from longreach.evaluate.tasks import Example, Question, Task, tasks
from longreach.evaluate.tasks.generated import Generated
from longreach.registry import Spec, canonical, parse


def run(
    task: Task,
    respondent: Respondent,
    results: Results,
    *,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    judge: Judge | None = None,
    progress: Callable[[int, int, bool], None] = lambda done, total, fresh: None,
) -> list[dict[str, Any]]:
    """The lines of the first `limit` examples of a task, those that `results` has already taken from there.

    `columns` are added to the configuration beside the respondent's own. A `judge` gives each answer one more score.
    `progress` is told how many are done, of how many, and whether the last one was computed now. Raises InputError for
    a limit below 1, and what the respondent does: what was done before is kept.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: run at least one example")
    name = label(task)
    configuration = {**respondent.columns, **(columns or {})}
    if judge is not None:
        configuration["judge"] = judge.engine.model
    total = len(task) if limit is None else min(limit, len(task))
    lines: list[dict[str, Any]] = []
    begun = False
    for done, example in enumerate(islice(task.examples(), total), start=1):
        key = key_of(name, configuration, example)
        line = results.find(key)
        if fresh := line is None:
            if not begun:
                results.begin(provenance())
                begun = True
            told = _questions(example, respondent.respond(example), judge)
            line = results.add(made_line(task, configuration, example, told))
        assert line is not None
        lines.append(line)
        progress(done, total, fresh)
    return lines


def made_line(
    task: Task, configuration: Mapping[str, str], example: Example, told: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The line of an example whose questions were answered and scored."""
    name = label(task)
    return {
        "key": key_of(name, configuration, example),
        "task": name,
        "chance": task.chance,
        "configuration": configuration,
        "example": example.id,
        "score": fmean(next(iter(question["scores"].values())) for question in told),
        "questions": told,
    }


def scored(example: Example, responses: Sequence[Response]) -> list[dict[str, Any]]:
    """What a line says of each question: scores, text, wanted answers, cost."""
    return [
        {
            "scores": score(question, response),
            "text": response.text,
            "answers": list(question.answers or question.relevant),
            "cost": asdict(response.cost),
        }
        for question, response in zip(example.questions, responses, strict=True)
    ]


def label(task: Task) -> str:
    """The spec of a task with all its options, but for how many examples there are: an example is the same among few
    or many."""
    spec = parse(canonical(tasks, task))
    kept = tuple((key, value) for key, value in spec.named if not (key == "n" and isinstance(task, Generated)))
    return str(Spec(spec.name, (), kept))


def shown(name: str) -> str:
    """A label as people write it: without the options that are at their defaults, but with the length."""
    spec = parse(name)
    defaults = {field.name: field.default for field in fields(tasks.get(spec.name))}  # type: ignore[arg-type]
    kept = tuple((key, value) for key, value in spec.named if key == "length" or defaults.get(key) != value)
    return str(Spec(spec.name, (), kept))


def _questions(example: Example, responses: Sequence[Response], judge: Judge | None) -> list[dict[str, Any]]:
    told = scored(example, responses)
    if judge is not None:
        start_afresh(judge.engine)
        for question, response, each in zip(example.questions, responses, told, strict=True):
            each["scores"] |= _judged(question, response, judge)
    return told


def _judged(question: Question, response: Response, judge: Judge) -> dict[str, float]:
    """The judge's score; none where it has no verdict, or there is no answer to hold the response against."""
    if not question.answers:
        return {}
    verdict = judge.score(question.text, response.text, question.answers)
    return {} if verdict is None else {"judge": verdict}
