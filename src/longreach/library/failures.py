"""Turns what SQLite, Lance and the file system raise into the library's own errors, one sentence each."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longreach.errors import DiskFullError, LibraryError

_FULL = ("no space left", "disk is full", "os error 28", "storage full")
_DENIED = ("readonly database", "read-only", "permission denied", "os error 13", "os error 30")


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Run a piece of work on the library at `path`. Raises LibraryError or DiskFullError for what its stores raise."""
    try:
        yield
    except (sqlite3.Error, OSError, RuntimeError, ValueError) as error:
        text = str(error).lower()
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if getattr(error, "errno", None) == errno.ENOSPC or any(word in text for word in _FULL):
            raise DiskFullError(
                f"there is no room left on the disk of the library {path}; what was indexed before is whole: "
                "free some space and run the same command again"
            ) from error
        if isinstance(error, PermissionError) or any(word in text for word in _DENIED):
            raise LibraryError(f"the library {path} cannot be written to: check its permissions") from error
        if isinstance(error, sqlite3.OperationalError) and "locked" in text:
            raise LibraryError(f"the library {path} is held by another process: try again") from error
        raise LibraryError(
            f"the library {path} is damaged or cannot be read ({first}): index the documents into a new one"
        ) from error
