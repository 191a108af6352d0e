"""`longreach index PATH [...]`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from longreach.cli import options
from longreach.cli.common import open_library, out, parse_metadata, print_json, shown_path
from longreach.cli.indexing import add, name_skipped, summary, why_nothing
from longreach.cli.reading import keep_read
from longreach.config import load_settings
from longreach.errors import DocumentError


def index(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files and folders.", show_default=False)],
    library: options.Library = None,
    chunker: options.Chunker = None,
    encoder: options.Encoder = None,
    metadata: options.Metadata = None,
    model: options.Model = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what keeping the KV of all chunks would take, for --model.")
    ] = False,
    read_ahead: Annotated[
        bool,
        typer.Option("--read-ahead", help="Then have --model read every chunk of PATH, so that questions wait less."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Add, update and remove documents. Unchanged files cost nothing; safe to interrupt and to run again."""
    settings = load_settings(library=library, encoder=encoder, chunker=chunker, model=model)
    chosen = settings.chunker if "chunker" in settings.model_fields_set else None
    if estimate:
        from longreach.cli.estimate import show_estimate

        show_estimate(settings, paths, chosen, as_json=as_json)
        return
    with open_library(settings, create=True, chunker=chosen) as opened:
        report = add(opened, paths, parse_metadata(metadata))
        ahead = keep_read(opened, settings, paths) if read_ahead else None
        stats = opened.stats()
    done = report.added + report.updated + report.unchanged + report.removed
    if as_json:
        told = {**asdict(report), "library": str(settings.library), "documents": stats.documents}
        print_json(told if ahead is None else {**told, "read_ahead": asdict(ahead)})
    else:
        name_skipped(report)
        if done:
            out.print(
                f"{summary(report)}: {stats.documents:,} documents, {stats.chunks:,} chunks, "
                f"{stats.bytes / 1e6:,.1f} MB in {shown_path(str(settings.library))}"
            )
        if ahead is not None:
            out.print(f"{ahead.chunks:,} chunks are kept as read, {ahead.tokens:,} tokens of them read now")
    if not done:
        raise DocumentError(f"nothing was indexed from {why_nothing(report, paths)}")
