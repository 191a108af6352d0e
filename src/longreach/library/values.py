"""What the library reports about itself and its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(slots=True)
class AddReport:
    """What one `add` did: numbers of documents, the paths it skipped with the reason, chunks written, seconds."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an `add` is: documents and bytes, done and in all (0 where not known); `message` where something else is
    to be told, such as waiting for another process."""

    done: int
    total: int
    bytes_done: int
    bytes_total: int
    message: str = ""


ProgressCallback: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class LibraryStats:
    """Sizes of a library and what it was made with. `bytes` is what it takes on disk."""

    documents: int
    chunks: int
    characters: int
    tokens: int
    bytes: int
    encoder: str
    chunker: str
    dim: int
