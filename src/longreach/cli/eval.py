"""`longreach eval TASK ...`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from longreach.cli import options
from longreach.cli.common import err, note, shown_path, token_counter
from longreach.config import Settings, load_settings
from longreach.errors import InputError

if TYPE_CHECKING:
    from longreach.engine import Engine
    from longreach.evaluate.metrics.judge import Judge
    from longreach.evaluate.respond import Respondent
    from longreach.evaluate.results import Results
    from longreach.evaluate.tasks import CorpusTask, Task
    from longreach.library import Library

RESULTS = Path("longreach-eval.jsonl")


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
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Compare two results files instead, example by example."),
    ] = None,
) -> None:
    """Score a model, a search or a reader on tasks. Safe to interrupt and to run again: it goes on where it was."""
    if compare:
        if specs:
            raise InputError("--compare takes two results files and no task")
        _compare(*compare, as_json)
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
    _run(specs, _Parts(settings, form, policy, judge), results, limit, as_json)


class _Parts:
    """What tasks are run with, made when the first task needs it."""

    def __init__(self, settings: Settings, form: Literal["text", "chat"], policy: str, judge: str) -> None:
        self.settings = settings
        self.form: Literal["text", "chat"] = form
        self.policy = policy
        self._judge = judge
        self._libraries: list[Library] = []

    def task(self, spec: str) -> Task:
        """The task that `spec` names; lengths are counted as the answering model does."""
        from longreach.evaluate.tasks import tasks

        count = token_counter(self.settings) or (lambda text: self.engine.count(text))
        return tasks.make(spec, count=count)

    def respondent(self, task: Task) -> Respondent:
        """Who answers a task: a search where documents are wanted, a reader where a corpus is asked, else a model."""
        from longreach.evaluate.respond import ModelRespondent, ReaderRespondent, SearchRespondent
        from longreach.evaluate.tasks import CorpusTask

        if not isinstance(task, CorpusTask):
            return ModelRespondent(self.engine, self.form, self.policy)
        if self.policy:
            raise InputError("a KV policy is for tasks that a model reads by itself: leave --policy away")
        library = self._library(task)
        corpus = library.path.stem
        if not task.answered:
            given = "k" in self.settings.model_fields_set
            k = self.settings.k if given else 100
            return SearchRespondent(library, corpus, self.settings.retriever, self.settings.reranker, k)
        from longreach.cli.ask import make_reader

        names = ("retriever", "reranker", "chooser", "order", "answer", "k", "prompt_tokens", "least_relevance")
        columns = {"corpus": corpus, **{name: str(getattr(self.settings, name)) for name in names}}
        return ReaderRespondent(make_reader(library, self.settings, self.engine), columns)

    @cached_property
    def engine(self) -> Engine:
        from longreach.cli.ask import make_engine

        return make_engine(self.settings)

    @cached_property
    def judge(self) -> Judge | None:
        from longreach.evaluate.metrics.judge import Judge

        if not self._judge:
            return None
        from longreach.cli.ask import make_engine
        from longreach.evaluate.respond import settle

        engine = make_engine(self.settings.model_copy(update={"model": self._judge}))
        settle(engine)
        return Judge(engine)

    def _library(self, task: CorpusTask) -> Library:
        """The corpus of a task as a library, kept in the cache for the next run."""
        from longreach.cli.common import open_library
        from longreach.evaluate.corpus import corpus_folder

        documents = task.documents()
        folder = corpus_folder(self.settings, documents)
        chosen = self.settings.model_copy(update={"library": folder})
        library = open_library(chosen, create=True, chunker=self.settings.chunker)
        self._libraries.append(library)
        if library.stats().documents < len(documents):
            note(f"indexing {len(documents):,} documents, once")
            library.add_documents(documents)
        return library

    def close(self) -> None:
        for library in self._libraries:
            library.close()


def _run(specs: Sequence[str], parts: _Parts, file: Path, limit: int | None, as_json: Path | None) -> None:
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


def _with_progress(task: Task, parts: _Parts, results: Results, limit: int | None) -> list[dict[str, Any]]:
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
