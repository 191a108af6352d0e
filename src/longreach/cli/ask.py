"""`longreach ask "QUESTION" [PATH ...]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from longreach.cli import options
from longreach.cli.common import err, note, open_library, out, parse_under, parse_where, print_json, shown_path
from longreach.cli.indexing import add, name_skipped, summary, why_nothing
from longreach.config import Settings, load_settings
from longreach.errors import DocumentError, InputError, LibraryError
from longreach.types import Answer, Citation, Usage

if TYPE_CHECKING:
    from longreach.engine import Engine


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.", show_default=False)],
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Index these first, and answer from them alone.")
    ] = None,
    library: options.Library = None,
    model: options.Model = None,
    answer: options.Answerer = None,
    retriever: options.Retriever = None,
    chooser: options.Chooser = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many hits to choose passages from.")] = None,
    prompt_tokens: options.PromptTokens = None,
    where: options.Where = None,
    as_json: options.AsJson = False,
) -> None:
    """Answer a question from your documents, and show where the answer stands."""
    from longreach.reader import Reader

    if not question.strip():
        raise InputError("the question is empty: ask something")
    settings = load_settings(
        library=library,
        model=model,
        answer=answer,
        retriever=retriever,
        chooser=chooser,
        k=k,
        prompt_tokens=prompt_tokens,
    )
    filters = parse_where(where)
    with open_library(settings, create=bool(paths)) as opened:
        if paths:
            _index(opened, paths, quiet=as_json)
        elif not opened.stats().documents:
            raise LibraryError(f"the library {settings.library} is empty: index some documents into it first")
        reader = Reader.configured(opened, make_engine(settings), settings)
        final: Answer | None = None
        with err.status("[dim]searching and reading[/]") as status:
            for event in reader.stream(question, where=filters, under=parse_under(paths)):
                if isinstance(event, Answer):
                    final = event
                elif isinstance(event, str):
                    status.update(f"[dim]{escape(event)}[/]" if event.strip() else "[dim]reading[/]")
        if final is None:
            raise AssertionError("a stream ends with its answer")
        if as_json:
            print_json(as_object(final))
        else:
            _show(final)


def as_object(answer: Answer) -> dict[str, Any]:
    """The answer as `ask --json` prints it."""
    return {
        "question": answer.question,
        "answer": answer.text,
        "found": answer.found,
        "citations": [
            {
                "document": citation.document,
                "start": citation.start,
                "end": citation.end,
                "quote": citation.quote,
                "page": citation.page,
                "line": citation.place.line,
                "section": list(citation.place.section),
            }
            for citation in answer.citations
        ],
        "timing": {
            "search_s": round(answer.timing.search, 4),
            "ttft_s": round(answer.timing.ttft, 4),
            "total_s": round(answer.timing.total, 4),
        },
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "reused_tokens": answer.usage.reused_tokens,
            "loaded_tokens": answer.usage.loaded_tokens,
            "recomputed_tokens": answer.usage.recomputed_tokens,
            "computed_tokens": answer.usage.computed_tokens,
            "generated_tokens": answer.usage.generated_tokens,
            "kv_bytes": answer.usage.kv_bytes,
        },
        "model": answer.model,
    }


def _index(library: Any, paths: list[Path], *, quiet: bool) -> None:
    report = add(library, paths)
    if not quiet and (report.added or report.updated or report.removed):
        note(f"indexed: {summary(report)}")
    if not quiet:
        name_skipped(report)
    if not report.added + report.updated + report.unchanged:
        raise DocumentError(f"nothing could be read from {why_nothing(report, paths)}")


def make_engine(settings: Settings) -> Engine:
    """The engine that the settings name."""
    from longreach.engine import Engine

    return Engine.load(
        settings.model,
        cache=settings.cache,
        device=settings.device,
        dtype=settings.dtype,
        kv_dtype=settings.kv_dtype,
        offline=settings.offline,
        api_key=settings.api_key,
        reuse=settings.reuse,
        report=note,
    )


def _show(answer: Answer) -> None:
    out.print()
    out.print(Text(answer.text, style="bold" if answer.found else "bold yellow"))
    out.print()
    for number, citation in enumerate(answer.citations, start=1):
        source = next(p.hit.document.source for p in answer.passages if p.number == citation.passage)
        place = escape(str(citation.place))
        out.print(f"  [bold][{number}][/] [cyan]{escape(shown_path(source or citation.document))}[/][dim], {place}[/]")
        out.print(Text("      ").append(_highlighted(citation, answer.text)))
    if not answer.found and answer.nearest:
        out.print("  [dim]Nearest passages:[/]")
        for hit in answer.nearest:
            source = shown_path(hit.document.source or hit.document.id)
            out.print(f"  [dim]-[/] [cyan]{escape(source)}[/][dim] · {' › '.join(map(escape, hit.chunk.section))}[/]")
    usage, timing = answer.usage, answer.timing
    note(
        f"\n  {answer.model} · {len(answer.passages)} passages · {usage.prompt_tokens} prompt tokens, "
        f"{_spared(usage)} · search {timing.search * 1000:.0f} ms · "
        f"first token {timing.ttft:.2f} s · total {timing.total:.2f} s"
    )


def _spared(usage: Usage) -> str:
    """How much of a prompt had been read before."""
    told = f"{usage.reused_tokens} reused"
    if usage.loaded_tokens:
        told += f" ({usage.loaded_tokens} loaded)"
    if usage.recomputed_tokens:
        told += f", {usage.recomputed_tokens} recomputed"
    return f"{told}, {usage.computed_tokens} computed"


def _highlighted(citation: Citation, answer: str) -> Text:
    """The quote on one line, the answer's words in it marked where they stand there as they are."""
    shown = Text(" ".join(citation.quote.split()), style="italic")
    shown.highlight_words([" ".join(answer.split())], "bold black on yellow", case_sensitive=False)
    return shown
