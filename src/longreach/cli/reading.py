"""Reading a library ahead of its questions, with a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from longreach.cli.common import err

if TYPE_CHECKING:
    from longreach.config import Settings
    from longreach.library import Library


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """`chunks` are kept now, and `tokens` of them were read for it."""

    chunks: int
    tokens: int


def keep_read(library: Library, settings: Settings, paths: Sequence[Path]) -> ReadAhead:
    """Have the model of `settings` read every chunk of the documents of `library` that come from `paths`. Safe to
    interrupt: what was read is kept. Raises UnsupportedError for a model that keeps no passages."""
    from longreach.cli.ask import make_engine
    from longreach.reader import Reader

    engine = make_engine(settings)
    reader = Reader.configured(library, engine, settings)
    under = [str(path) for path in paths]
    wanted = sum(info.chunks for info in library.documents(under=under))
    chunks = tokens = 0
    columns = (TextColumn("reading ahead"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=wanted or None)
        for step in reader.read_ahead(under=under):
            chunks += step.chunks
            tokens += step.tokens
            bar.update(task, completed=chunks)
    return ReadAhead(chunks, tokens)
