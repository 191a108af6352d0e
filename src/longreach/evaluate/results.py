"""The file of a run: JSON, one line per example, written when it is done.

A process that is killed at any moment leaves whole lines and at most one that is cut off, which the next one takes out.
Lines of two kinds:

- `run`: what began (command, versions, machine, revision); the lines after it refer to it by its id;
- `example`: its task, its configuration, the scores, answers and costs of its questions. `key` is made of task,
  configuration and all that the example says, so that nothing is done twice and nothing stands for something else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from longreach.errors import InputError
from longreach.evaluate.tasks import Example


class Results:
    """A results file that is open for writing: by one process at a time. `lines` are those of its examples."""

    def __init__(self, path: Path) -> None:
        """Open `path`, made where it is missing. Raises InputError where it is no results file or another process
        writes to it."""
        from filelock import FileLock, Timeout

        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(f"another process is writing to {path}: wait for it, or name another file") from None
        try:
            found, whole = _parse(path)
            self._file = path.open("ab")
            self._file.truncate(whole)
        except BaseException:
            self._lock.release()
            raise
        self.lines = [line for line in found if line["kind"] == "example"]
        self._known = {line["key"]: line for line in self.lines}
        self._run = ""

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def find(self, key: str) -> dict[str, Any] | None:
        """The line of an example that is done."""
        return self._known.get(key)

    def begin(self, provenance: Mapping[str, Any]) -> None:
        """Say what the lines from now on come from."""
        body = {key: value for key, value in provenance.items() if key not in ("kind", "run")}
        self._run = _digest(body)
        self._write({"kind": "run", "run": self._run, **body})

    def add(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Write the line of an example; it has reached the disk when this returns."""
        whole = {"kind": "example", "run": self._run, **line}
        self._write(whole)
        self.lines.append(whole)
        self._known[whole["key"]] = whole
        return whole

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_results(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a results file. Raises InputError where there is none or it is something else."""
    if not path.is_file():
        raise InputError(f"there is no results file {path}")
    return _parse(path)[0]


def key_of(task: str, columns: Mapping[str, str], example: Example) -> str:
    """What tells an example's line from every other."""
    return _digest([task, dict(sorted(columns.items())), asdict(example)])


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many bytes they take: what comes after is cut off."""
    if not path.is_file():
        return [], 0
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    lines: list[dict[str, Any]] = []
    for number, raw in enumerate(content[:whole].splitlines(), start=1):
        try:
            line = json.loads(raw)
            if line["kind"] not in ("run", "example") or (line["kind"] == "example" and not _sound(line)):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}, line {number}: this is no line of a results file") from None
        lines.append(line)
    return lines, whole


def _sound(line: Mapping[str, Any]) -> bool:
    needed: Sequence[str] = ("key", "task", "configuration", "example", "score", "questions")
    return all(name in line for name in needed)


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
