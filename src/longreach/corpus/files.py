"""Finding the files to read: a walk in a stable order that says what it passed over and why. Imports nothing heavy."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from longreach.corpus.formats import NOT_TEXT, extension, format_of
from longreach.corpus.load import SIZE_LIMIT, printable
from longreach.corpus.read.text import is_binary
from longreach.errors import InputError

_PASSED_FOLDERS = frozenset(("node_modules", "__pycache__", "venv", "site-packages"))
_SNIFF = 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file worth reading: its absolute path, `size` in bytes, `mtime` in nanoseconds."""

    path: Path
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was passed over; `path` is fit to print, `reason` completes "skipped because"."""

    path: str
    reason: str


@dataclass(slots=True)
class Walk:
    """What was found under some paths, each file once, in the order of the paths and then of the names."""

    candidates: list[Candidate] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def walk(paths: Iterable[str | Path], *, size_limit: int = SIZE_LIMIT) -> Walk:
    """Every readable file among `paths` and in the folders among them.

    Hidden files and folders, caches, virtual environments and libraries of Longreach are left out in silence; other
    files that cannot be read are listed in `skipped`. A file that is named itself is never left out for its name.
    Raises InputError for a path that does not exist.
    """
    found = Walk()
    seen: set[tuple[int, int]] = set()
    for given in paths:
        root = os.path.abspath(given)
        try:
            status = os.stat(root)
        except (OSError, ValueError) as error:
            reason = "there is no such file or folder" if isinstance(error, FileNotFoundError) else str(error)
            raise InputError(f"cannot read {printable(root)}: {reason}") from None
        if stat.S_ISDIR(status.st_mode):
            for path, entry_status in _files(root, seen, found):
                _judge(path, entry_status, size_limit, seen, found)
        else:
            _judge(root, status, size_limit, seen, found, named=True)
    return found


def _files(folder: str, seen: set[tuple[int, int]], found: Walk) -> Iterator[tuple[str, os.stat_result]]:
    """The files under a folder, depth first, names sorted. A folder reached twice, as by a link, is read once."""
    pending = [folder]
    while pending:
        path = pending.pop()
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            found.skipped.append(Skipped(printable(path), f"it is unreadable: {error.strerror}"))
            continue
        folders: list[str] = []
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    if not _passed(entry):
                        folders.append(entry.path)
                else:
                    yield entry.path, entry.stat()
            except OSError as error:
                found.skipped.append(Skipped(printable(entry.path), f"it is unreadable: {error.strerror}"))
        pending += reversed(folders)


def _passed(entry: os.DirEntry[str]) -> bool:
    if entry.name in _PASSED_FOLDERS or entry.name.endswith(".library"):
        return True
    return os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


def _judge(
    path: str, status: os.stat_result, limit: int, seen: set[tuple[int, int]], found: Walk, *, named: bool = False
) -> None:
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return
    seen.add(identity)
    reason = _reason(path, status, limit, named)
    if reason:
        found.skipped.append(Skipped(printable(path), reason))
    else:
        found.candidates.append(Candidate(Path(path), status.st_size, status.st_mtime_ns))


def _reason(path: str, status: os.stat_result, limit: int, named: bool) -> str:
    """Why a file is not worth reading, "" if it is."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    name = os.path.basename(path)
    if not named and extension(name) in NOT_TEXT:
        return f"no reader understands .{extension(name)} files"
    if status.st_size == 0:
        return "it is empty"
    if status.st_size > limit:
        return f"its {status.st_size / 1e6:.0f} MB are over the limit of {limit / 1e6:.0f} MB"
    if not os.access(path, os.R_OK):
        return "it is unreadable: Permission denied"
    if named or format_of(name) is not None:
        return ""
    try:
        with open(path, "rb") as file:
            return "it is binary" if is_binary(file.read(_SNIFF)) else ""
    except OSError as error:
        return f"it is unreadable: {error.strerror}"
