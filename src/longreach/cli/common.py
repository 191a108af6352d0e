"""What the commands share: the two consoles, how errors are shown."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from longreach.config import Settings
from longreach.errors import InputError, LongreachError

if TYPE_CHECKING:
    from longreach.library import Library
    from longreach.types import MetadataValue

out = Console(highlight=False, soft_wrap=True)
"""Results: what a pipe gets."""
err = Console(stderr=True, highlight=False)
"""Progress, notes and errors."""


def fail(sentence: str, code: int) -> NoReturn:
    """Show one sentence and end."""
    err.print(f"[bold red]longreach:[/] {_escaped(sentence)}", soft_wrap=True)
    sys.exit(code)


@contextmanager
def errors() -> Iterator[None]:
    """Show what Longreach raises on purpose as one sentence; what it does not is a bug and keeps its traceback."""
    try:
        yield
    except LongreachError as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has heard enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        fail("no room left on the disk", 1)


def note(sentence: str) -> None:
    """Tell something beside the result."""
    err.print(f"[dim]{_escaped(sentence)}[/]", soft_wrap=True)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """One JSON value on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def open_library(settings: Settings, *, create: bool = False, chunker: str | None = None) -> Library:
    """The library of the settings."""
    from longreach.library import Library

    return Library.open(
        settings.library,
        create=create,
        encoder=settings.encoder if "encoder" in settings.model_fields_set else None,
        chunker=chunker,
        cache=settings.cache,
        count=token_counter(settings),
    )


def parse_where(pairs: list[str] | None) -> dict[str, Any] | None:
    """`key=value` pairs as a filter; a key that is repeated takes any of its values. Raises InputError."""
    wanted: dict[str, list[MetadataValue]] = {}
    for key, value in _pairs("--where", pairs):
        wanted.setdefault(key, []).append(value)
    return dict(wanted) or None


def parse_under(paths: list[Path] | None) -> list[str] | None:
    """Paths as a filter; none is no filter."""
    return [str(path) for path in paths] if paths else None


def parse_metadata(pairs: list[str] | None) -> dict[str, MetadataValue] | None:
    """`key=value` pairs as metadata. Raises InputError."""
    return dict(_pairs("--metadata", pairs)) or None


def shown_path(source: str) -> str:
    """A path as people like to read it: on one line, relative to the working folder where it lies below it."""
    path = Path(source)
    shown = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else source
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode("ascii")


def _pairs(option: str, pairs: list[str] | None) -> Iterator[tuple[str, MetadataValue]]:
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{option} {pair!r}: write key=value")
        yield key, _metadata_value(value)


def _metadata_value(text: str) -> MetadataValue:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def token_counter(settings: Settings) -> Any:
    """Counts tokens as the answering model does, where its tokenizer is at hand, else None."""
    from longreach.model.names import tokenizer_file
    from longreach.tokens import Tokenizer

    file = tokenizer_file(settings.model, settings.cache)
    return Tokenizer.from_file(file) if file else None


def _escaped(sentence: str) -> str:
    from rich.markup import escape

    return escape(sentence)
