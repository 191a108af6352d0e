"""Uploads that were taken and are not in their library yet: nothing that a client was told is taken gets lost."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import IO, Literal, TypeAlias

from filelock import FileLock, Timeout

from longreach.errors import DiskFullError, LongreachError
from longreach.serve import ledger
from longreach.types import MetadataValue

Status: TypeAlias = Literal["queued", "reading", "indexing", "done", "failed"]
KEPT = 7 * 24 * 3600.0
"""Seconds for which it is remembered how an upload ended."""
_TABLE = """
CREATE TABLE IF NOT EXISTS uploads (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, library TEXT NOT NULL, document TEXT NOT NULL,
  kind TEXT NOT NULL, metadata TEXT NOT NULL, bytes INTEGER NOT NULL, status TEXT NOT NULL, progress REAL NOT NULL,
  reason TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL
)"""


@dataclass(frozen=True, slots=True)
class Upload:
    """Something that shall become `document` of `library`: a "file" that must be read, or a "text". `progress` goes
    from 0 to 1; `reason` says why it failed, or what it waits for. Times are seconds since 1970."""

    id: str
    library: str
    document: str
    kind: Literal["file", "text"]
    metadata: Mapping[str, MetadataValue]
    bytes: int
    status: Status
    progress: float
    reason: str
    created: float
    changed: float


class Journal:
    """Rows in `folder/uploads.sqlite`, contents in `folder/uploads`, each under a name of its own making. For any
    thread of one process; a second one is refused."""

    def __init__(self, folder: Path) -> None:
        self._contents = folder / "uploads"
        self._lock = RLock()
        self._owned = FileLock(folder / "uploads.lock", thread_local=False)  # closed by another thread than opened it
        try:
            self._contents.mkdir(parents=True, exist_ok=True)
            self._owned.acquire(timeout=0)
            self._connection = sqlite3.connect(folder / "uploads.sqlite", timeout=10, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_TABLE)
            self._connection.execute(ledger.TABLE)
        except Timeout:
            raise LongreachError(f"another server uses {folder}: end it, or take another folder") from None
        except (OSError, sqlite3.Error) as error:
            raise LongreachError(f"the uploads in {folder} cannot be kept: {error}") from None

    def take(
        self,
        library: str,
        document: str,
        kind: Literal["file", "text"],
        content: IO[bytes],
        metadata: Mapping[str, MetadataValue],
        owner: str = "",
        quota: int = 0,
    ) -> Upload:
        """Keep an upload of the key `owner`, which may have `quota` bytes here (0: any number): when this returns it
        outlives the process. Raises DiskFullError, and Refusal, 413, where the quota does not suffice."""
        identity, now = secrets.token_hex(12), time.time()
        path, size = self.content(identity), content.seek(0, os.SEEK_END)
        content.seek(0)
        with self._lock:
            ledger.check(self._connection, owner, size, quota)  # and again when it is here: others come meanwhile
        size = 0
        try:
            with open(path.with_suffix(".new"), "wb") as file:
                while block := content.read(1 << 20):
                    size += file.write(block)
                file.flush()
                os.fsync(file.fileno())
            path.with_suffix(".new").rename(path)
            _sync(self._contents)
        except OSError as error:
            path.with_suffix(".new").unlink(missing_ok=True)
            raise DiskFullError(f"an upload cannot be kept: {error.strerror or error}") from None
        row = (identity, library, document, kind, json.dumps(dict(metadata)), size, now, now)
        try:
            with self._writing() as connection:
                ledger.check(connection, owner, size, quota)
                command = "INSERT INTO uploads VALUES (NULL, ?, ?, ?, ?, ?, ?, 'queued', 0, '', ?, ?)"
                number = connection.execute(command, row).lastrowid
                assert number is not None, "a row that was inserted has one"
                ledger.charge(connection, identity, number, owner, library, document, size)
        except LongreachError:
            path.unlink(missing_ok=True)
            raise
        return Upload(identity, library, document, kind, dict(metadata), size, "queued", 0.0, "", now, now)

    def content(self, identity: str) -> Path:
        """Where the bytes of an upload lie until it is done."""
        return self._contents / identity

    def set(self, identity: str, status: Status, progress: float = 0.0, reason: str = "") -> bool:
        """Say how far an upload is. False where it was taken back meanwhile."""
        with self._writing() as connection:
            what = (status, progress, reason, time.time(), identity)
            command = "UPDATE uploads SET status = ?, progress = ?, reason = ?, changed = ? WHERE id = ?"
            known = connection.execute(command, what).rowcount > 0
            if status == "done" and known:
                ledger.settle(connection, identity)
            elif status == "failed":
                ledger.drop(connection, identity)
        if status in ("done", "failed") or not known:
            self.content(identity).unlink(missing_ok=True)
        return known

    def next(self, most: int, most_bytes: int) -> list[Upload]:
        """The oldest unfinished uploads of one library, together at most `most_bytes` or one. None overtakes another of
        its library: what came last to a document stays. One at a time takes them, so what is under way here was left
        there by a try that failed (on a full disk it could not even be noted down)."""
        waiting = self._select("status NOT IN ('done', 'failed') ORDER BY number LIMIT ?", (4 * most,))
        batch: list[Upload] = []
        for upload in waiting:
            if batch and upload.library != batch[0].library:
                continue
            if batch and sum(one.bytes for one in batch) + upload.bytes > most_bytes:
                break
            batch.append(upload)
            if len(batch) == most:
                break
        return batch

    def get(self, library: str, identity: str) -> Upload | None:
        """An upload to `library`."""
        return next(iter(self._select("library = ? AND id = ?", (library, identity))), None)

    def of(self, library: str) -> list[Upload]:
        """The uploads to `library`, latest first, at most a thousand."""
        return self._select("library = ? ORDER BY number DESC LIMIT 1000", (library,))

    def unfinished(self) -> int:
        """How many uploads are on their way."""
        with self._lock:
            command = "SELECT COUNT(*) FROM uploads WHERE status NOT IN ('done', 'failed')"
            return int(self._connection.execute(command).fetchone()[0])

    def forget(self, library: str, document: str | None = None) -> int:
        """Take back the uploads to `library`, or those that shall become one document of it. Returns how many were on
        their way."""
        where, values = "library = ?", [library]
        if document is not None:
            where, values = f"{where} AND document = ?", [library, document]
        known = self._select(where, values)
        with self._writing() as connection:
            for upload in known:
                if upload.status != "done":
                    ledger.drop(connection, upload.id)
            connection.execute(f"DELETE FROM uploads WHERE {where}", values)
        for upload in known:
            self.content(upload.id).unlink(missing_ok=True)
        return sum(upload.status not in ("done", "failed") for upload in known)

    def deleted(self, library: str, document: str | None = None) -> None:
        """A library, or one document of it, is there no more: it counts for nobody."""
        with self._writing() as connection:
            ledger.release(connection, library, document)

    def resume(self) -> int:
        """After a start: what was under way waits again; contents that nobody speaks of go. Returns how many wait."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE uploads SET status = 'queued', progress = 0 WHERE status IN ('reading', 'indexing')"
            )
            ended = "DELETE FROM uploads WHERE status IN ('done', 'failed') AND changed < ?"
            connection.execute(ended, (time.time() - KEPT,))
        waiting = {upload.id for upload in self._select("status = 'queued'", ())}
        for path in self._contents.iterdir():
            if path.name not in waiting:
                path.unlink(missing_ok=True)
        return len(waiting)

    def close(self) -> None:
        with self._lock:
            self._connection.close()
            self._owned.release()

    def _select(self, where: str, values: Sequence[object]) -> list[Upload]:
        with self._lock:
            rows = self._connection.execute(f"SELECT * FROM uploads WHERE {where}", values).fetchall()
        return [_upload(row) for row in rows]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._connection:
                    yield self._connection
            except sqlite3.Error as error:
                raise DiskFullError(f"the journal of uploads cannot be written: {error}") from None


def _upload(row: sqlite3.Row) -> Upload:
    told = dict(row)
    del told["number"]
    return Upload(**{**told, "metadata": json.loads(told["metadata"])})


def _sync(folder: Path) -> None:
    """Have the folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
