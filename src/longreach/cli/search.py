"""`longreach search "QUERY"`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from longreach.cli import options
from longreach.cli.common import open_library, out, parse_under, parse_where, print_json, shown_path
from longreach.config import load_settings


def search(
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    under: options.Under = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 10,
    retriever: options.Retriever = None,
    reranker: options.Reranker = None,
    where: options.Where = None,
    library: options.Library = None,
    as_json: options.AsJson = False,
) -> None:
    """Find passages: hits with their spans and scores."""
    settings = load_settings(library=library, retriever=retriever, reranker=reranker)
    with open_library(settings) as opened:
        hits = opened.search(
            query,
            k,
            retriever=settings.retriever,
            reranker=settings.reranker,
            where=parse_where(where),
            under=parse_under(under),
        )
        if as_json:
            print_json(
                [
                    {
                        "document": hit.document.id,
                        "chunk": hit.chunk.id,
                        "start": hit.chunk.start,
                        "end": hit.chunk.end,
                        "page": hit.chunk.page,
                        "section": list(hit.chunk.section),
                        "score": hit.score,
                        "scores": dict(hit.scores),
                        "text": hit.text,
                    }
                    for hit in hits
                ]
            )
            return
        if not hits:
            out.print("Nothing was found.")
        for number, hit in enumerate(hits, start=1):
            place = opened.get(hit.document.id).place(hit.chunk.start)
            out.print(
                f"[bold]{number}.[/] [cyan]{escape(shown_path(hit.document.source or hit.document.id))}[/]"
                f"[dim], {escape(str(place))} · {hit.score:.3f}[/]"
            )
            out.print(f"   {escape(_excerpt(hit.text))}\n")


def _excerpt(text: str, width: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: line.rfind(" ", 0, width) or width] + " …"
