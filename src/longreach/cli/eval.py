"""`longreach eval TASK ...`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from longreach.cli import options
from longreach.cli.common import err, note, shown_path
from longreach.cli.eval_parts import AXES, Parts, own_documents
from longreach.config import load_settings
from longreach.errors import InputError

if TYPE_CHECKING:
    from longreach.evaluate.results import Results
    from longreach.evaluate.tasks import Task

RESULTS = Path("longreach-eval.jsonl")
SWEEP = Path("longreach-sweep")
QUESTIONS = Path("questions.jsonl")


def evaluate(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK...", help='Such as "niah_multikey(length=4096, keys=4)" or "retrieval(pack=scifact)".'
        ),
    ] = None,
    model: options.Model = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N examples of each task.")] = None,
    results: Annotated[
        Path, typer.Option(metavar="FILE", help="One line per example; what stands there is not run again.")
    ] = RESULTS,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the summary here.")] = None,
    form: Annotated[
        Literal["text", "chat"], typer.Option(help="A text to go on with, or the model's chat template.")
    ] = "text",
    policy: Annotated[str, typer.Option(help='What is kept of the KV, such as "snapkv(budget=0.25)".')] = "",
    judge: Annotated[
        str, typer.Option(metavar="MODEL", help="A model that says of each answer whether it is right.")
    ] = "",
    answer: options.Answerer = None,
    retriever: options.Retriever = None,
    reranker: options.Reranker = None,
    chooser: options.Chooser = None,
    chunker: options.Chunker = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many hits are searched for.")] = None,
    prompt_tokens: options.PromptTokens = None,
    sweep: Annotated[
        str,
        typer.Option(metavar="GRID", help='Try all combinations: "policy=full,snapkv(budget=0.1..1.0)", "k=4..32".'),
    ] = "",
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where a sweep writes.")] = SWEEP,
    make: Annotated[
        Path | None,
        typer.Option("--make-questions", metavar="LIBRARY", help="Write questions about its documents instead."),
    ] = None,
    makers: Annotated[
        list[str] | None, typer.Option("--maker", help="What makes questions, such as numbers; may be repeated.")
    ] = None,
    questions: Annotated[Path, typer.Option(metavar="FILE", help="Where the questions made are written.")] = QUESTIONS,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Compare two results files instead, example by example."),
    ] = None,
) -> None:
    """Score a model, a search or a reader on tasks, or a library on questions about it: eval LIBRARY questions.jsonl.

    Safe to interrupt and to run again: it goes on where it was.
    """
    if compare:
        if specs:
            raise InputError("--compare takes two results files and no task")
        _compare(*compare, as_json)
        return
    if make:
        if specs:
            raise InputError("--make-questions takes a library and no task")
        from longreach.cli.make_questions import make_questions

        make_questions(make, makers or [], questions, limit, load_settings(model=model))
        return
    if not specs:
        from longreach.evaluate.tasks import tasks

        raise InputError(f"name a task; known: {', '.join(tasks.names())}")
    settings = load_settings(
        model=model,
        answer=answer,
        retriever=retriever,
        reranker=reranker,
        chooser=chooser,
        chunker=chunker,
        k=k,
        prompt_tokens=prompt_tokens,
    )
    parts = Parts(settings, form, policy, judge)
    specs = own_documents(specs)
    if not sweep:
        _run(specs, parts, results, limit, as_json)
        return
    if policy or judge:
        raise InputError("--policy and --judge are not for sweeps: write policy=... into the grid")
    from longreach.cli.sweep import sweep_tasks
    from longreach.evaluate.grid import expand, parse_grid
    from longreach.evaluate.provenance import provenance

    every = [one for spec in specs for one in expand(spec)]
    marks = sweep_tasks(every, parts, parse_grid(sweep, AXES), folder, limit)
    if as_json:
        _write(as_json, {**provenance(), "folder": str(folder), "marks": [mark.as_object() for mark in marks]})


def _run(specs: Sequence[str], parts: Parts, file: Path, limit: int | None, as_json: Path | None) -> None:
    from longreach.cli.eval_tables import show_summaries
    from longreach.evaluate.provenance import provenance
    from longreach.evaluate.report import summarize
    from longreach.evaluate.results import Results

    with Results(file) as results:
        try:
            made = [parts.task(spec) for spec in specs]
            lines = [line for task in made for line in _with_progress(task, parts, results, limit)]
        finally:
            parts.close()
    summaries = summarize(lines)
    show_summaries(summaries)
    note(f"every example: {shown_path(str(file.absolute()))}")
    if as_json:
        _write(as_json, {**provenance(), "results": str(file), "summaries": [each.as_object() for each in summaries]})


def _with_progress(task: Task, parts: Parts, results: Results, limit: int | None) -> list[dict[str, Any]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from longreach.evaluate.run import label, run

    name = label(task).partition("(")[0]
    respondent, judge = parts.respondent(task), parts.judge
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    taken = 0
    with Progress(*columns, console=err, transient=True) as bar:
        shown = bar.add_task(name, total=None)

        def show(done: int, total: int, fresh: bool) -> None:
            nonlocal taken
            taken += not fresh
            bar.update(shown, completed=done, total=total)

        lines = run(task, respondent, results, limit=limit, judge=judge, progress=show)
    if taken:
        note(f"{name}: {taken:,} of {len(lines):,} examples were done before")
    return lines


def _compare(first: Path, second: Path, as_json: Path | None) -> None:
    from longreach.cli.eval_tables import show_comparisons
    from longreach.evaluate.report import compare_runs
    from longreach.evaluate.results import read_results

    found = compare_runs(read_results(first), read_results(second))
    show_comparisons(found)
    if as_json:
        _write(
            as_json, {"first": str(first), "second": str(second), "comparisons": [each.as_object() for each in found]}
        )


def _write(file: Path, value: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
