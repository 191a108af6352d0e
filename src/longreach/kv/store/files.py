"""Files that are whole or not there, whoever is killed, and whatever else writes to the folder."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.kv(\d+)")
_UNFINISHED = re.compile(r"\.[0-9a-f.]{41}\.kv\d+\.[0-9a-f]{16}\.tmp")
_ABANDONED = 600.0
"""Seconds after which an unfinished file that nobody wrote to belongs to nobody."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the store: its `name` relative to the folder, bytes, and when it last changed."""

    name: str
    bytes: int
    changed: int


def write(path: Path, *parts: bytes) -> None:
    """Write a file that is whole or not there: under a name of its own, to the disk, then renamed. Raises OSError, and
    leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with unfinished.open("xb", buffering=0) as stream:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[stream.write(rest) :]
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def read(path: Path) -> memoryview:
    """The bytes of a file. Raises OSError where it is not there or cannot be read. Other threads go on meanwhile, which
    a page of a map that is not there yet would not let them."""
    return memoryview(path.read_bytes())


def present(path: Path) -> bool:
    """Whether there is something; no where the disk does not say."""
    return os.path.exists(path)  # unlike `Path.exists`, whatever goes wrong


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Change a few bytes in place, if the file is there and may be written."""
    with suppress(OSError), path.open("r+b", buffering=0) as stream:
        stream.seek(at)
        stream.write(data)


def start(path: Path, size: int) -> bytes:
    """The first `size` bytes; fewer, or none, where there are not so many."""
    try:
        with path.open("rb", buffering=0) as stream:
            return stream.read(size)
    except OSError:
        return b""


def remove(path: Path) -> None:
    """Remove a file, if it is there and may be removed."""
    with suppress(OSError):
        path.unlink()


def entries(folder: Path) -> Iterator[Found]:
    """The entries in the folders of `folder`, one a model. Files that are none of ours are passed over; those that
    somebody left unfinished are removed."""
    for model in _listed(folder):
        if not model.is_dir(follow_symlinks=False):
            continue
        for file in _listed(Path(model.path)):
            with suppress(OSError):
                if ENTRY.fullmatch(file.name):
                    seen = file.stat(follow_symlinks=False)
                    yield Found(f"{model.name}/{file.name}", seen.st_size, seen.st_mtime_ns)
                elif _UNFINISHED.fullmatch(file.name) and time.time() - file.stat().st_mtime > _ABANDONED:
                    remove(Path(file.path))


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []
