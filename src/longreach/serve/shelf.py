"""The libraries of a server, by name."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from longreach.library import Library
from longreach.library.lock import sole_writer
from longreach.serve.options import ServeOptions
from longreach.serve.refusals import Refusal, bad, not_found

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SUFFIX = ".library"
WAIT = 60.0
"""Seconds that a deletion waits for who writes to the library."""


class Shelf:
    """Libraries in `options.folder`, and those that are mounted from elsewhere. A name is checked before it is part of
    a path: small letters, digits, `_` and `-`. `opened(path, create)` opens a library."""

    def __init__(self, options: ServeOptions, opened: Callable[[Path, bool], Library]) -> None:
        self._folder = options.folder / "libraries"
        self._mounted = dict(options.mounted)
        self._opened = opened
        self._open: dict[str, Library] = {}
        self._lock = Lock()

    def names(self) -> list[str]:
        """All libraries, sorted."""
        own = self._folder.glob(f"*{_SUFFIX}") if self._folder.is_dir() else ()
        found = {path.name.removesuffix(_SUFFIX) for path in own}
        return sorted({name for name in found if _NAME.fullmatch(name)} | set(self._mounted))

    def get(self, name: str) -> Library:
        """The library called `name`, opened once. Raises Refusal, 404, where there is none."""
        with self._lock:
            if name not in self._open:
                path = self._mounted.get(name) or self._path(name)
                if path is None or not path.is_dir():
                    raise not_found(f"library {name!r}")
                self._open[name] = self._opened(path, False)
            return self._open[name]

    def writable(self, name: str) -> Library:
        """As `get`. Raises Refusal, 403, for one that is mounted."""
        library = self.get(name)
        if name in self._mounted:
            raise Refusal(403, f"the library {name!r} is only read here: change it with `longreach`", code="read_only")
        return library

    def writes(self, name: str) -> bool:
        """Whether the library may be changed here."""
        return name not in self._mounted

    def create(self, name: str) -> Library:
        """A new library. Raises Refusal, 400 or 409, for a name that cannot be or is taken."""
        path = self._path(name)
        if path is None:
            raise bad(f"{name!r} is no name for a library: take small letters, digits, _ and -", "name")
        with self._lock:
            if name in self._mounted or path.exists():
                raise Refusal(409, f"there is a library {name!r} already", code="exists")
            self._folder.mkdir(parents=True, exist_ok=True)
            self._open[name] = self._opened(path, True)
            return self._open[name]

    def delete(self, name: str) -> None:
        """Take a library from the disk. Raises Refusal, 403 or 404, and LibraryBusyError where somebody writes to it
        for long."""
        self.writable(name)
        path = self._path(name)
        assert path is not None, "it is there"
        gone = self._folder / f".gone-{os.urandom(8).hex()}"
        with sole_writer(path, WAIT), self._lock:
            library = self._open.pop(name, None)
            path.rename(gone)  # at once for all who look for it; taking it apart may last
            if library is not None:
                library.close()
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Take away what a deletion left that was interrupted."""
        for path in self._folder.glob(".gone-*"):
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Close every library."""
        with self._lock:
            for library in self._open.values():
                library.close()
            self._open.clear()

    def _path(self, name: str) -> Path | None:
        """Where a library of this name lies, or would; None for what no library is called."""
        return self._folder / f"{name}{_SUFFIX}" if _NAME.fullmatch(name) else None
