"""`longreach library`: what a library holds, and taking documents out of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from longreach.cli import options
from longreach.cli.common import open_library, out, parse_under, parse_where, print_json, shown_path
from longreach.config import load_settings
from longreach.errors import InputError

app = typer.Typer(help="Look into a library, or take documents out.", no_args_is_help=True)


@app.command("list")
def list_documents(
    under: options.Under = None,
    where: options.Where = None,
    library: options.Library = None,
    as_json: options.AsJson = False,
) -> None:
    """List the documents."""
    with open_library(load_settings(library=library)) as opened:
        infos = opened.documents(parse_where(where), parse_under(under))
    if as_json:
        print_json([{**asdict(info), "metadata": dict(info.metadata)} for info in infos])
        return
    for info in infos:
        name = escape(shown_path(info.source or info.id))
        out.print(f"{name}  [dim]{info.characters:,} characters, {info.chunks} chunks[/]")


@app.command()
def stats(library: options.Library = None, as_json: options.AsJson = False) -> None:
    """Say how large a library is and what it was made with."""
    from longreach.kv.store.estimate import usage

    settings = load_settings(library=library)
    with open_library(settings) as opened:
        figures = opened.stats()
    kept = usage(settings.kv_store)
    if as_json:
        store = {"folder": str(settings.kv_store), "models": [asdict(model) for model in kept]}
        print_json({"library": str(settings.library), **asdict(figures), "kv_store": store})
        return
    out.print(f"{shown_path(str(settings.library))}")
    out.print(f"  {figures.documents:,} documents, {figures.characters:,} characters, {figures.tokens:,} tokens")
    out.print(f"  {figures.chunks:,} chunks, cut by {escape(figures.chunker)}")
    out.print(f"  vectors of {figures.dim} dimensions by {escape(figures.encoder)}")
    out.print(f"  {figures.bytes / 1e6:,.1f} MB on disk")
    if kept:
        out.print(f"KV of chunks, of all libraries, in {escape(shown_path(str(settings.kv_store)))}")
    for model in kept:
        out.print(f"  {escape(model.model)}: {model.entries:,} entries, {model.bytes / 1e6:,.1f} MB")


@app.command()
def remove(
    documents: Annotated[list[str], typer.Argument(metavar="DOCUMENT", help="Ids or paths.", show_default=False)],
    library: options.Library = None,
) -> None:
    """Take documents out of a library; the files stay where they are."""
    with open_library(load_settings(library=library)) as opened:
        held = {info.id for info in opened.documents()}
        chosen = [name if name in held else str(Path(name).absolute()) for name in documents]
        missing = [name for name, id in zip(documents, chosen, strict=True) if id not in held]
        if missing:
            raise InputError(f"not in the library: {', '.join(missing)}; `longreach library list` names what is")
        report = opened.remove(chosen)
    out.print(f"{report.removed:,} removed")
