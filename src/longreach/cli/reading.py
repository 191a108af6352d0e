"""Reading a library ahead of its questions, with a progress bar."""

from __future__ import annotations

from dataclasses import dataclass
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


def keep_read(library: Library, settings: Settings) -> ReadAhead:
    """Have the model of `settings` read every chunk of `library`. Safe to interrupt: what was read is kept. Raises
    UnsupportedError for a model that keeps no passages."""
    from longreach.cli.ask import make_engine, make_reader

    engine = make_engine(settings)
    reader = make_reader(library, settings, engine)
    chunks = tokens = 0
    columns = (TextColumn("reading ahead"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=library.stats().chunks or None)
        for step in reader.read_ahead():
            chunks += step.chunks
            tokens += step.tokens
            bar.update(task, completed=chunks)
    return ReadAhead(chunks, tokens)
