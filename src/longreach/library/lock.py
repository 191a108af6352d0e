"""One writer at a time, between processes and between threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from longreach.errors import LibraryBusyError, LibraryError

FILE = "writer.lock"


@contextmanager
def sole_writer(folder: Path, wait: float, told: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the library in `folder` for writing; `told` hears that another holds it. Waits `wait` seconds, then raises
    LibraryBusyError. The system frees the lock of a process that dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / FILE)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if told:
                told(f"another process is writing to {folder}: waiting for it")
            lock.acquire(timeout=wait, poll_interval=0.1)
    except Timeout:
        raise LibraryBusyError(
            f"another process has been writing to the library {folder} for over {wait:.0f} s: try again when it is done"
        ) from None
    except OSError as error:
        raise LibraryError(f"the library {folder} cannot be written to: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
