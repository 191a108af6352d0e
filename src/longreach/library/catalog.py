"""The catalog: one SQLite file that says what the library holds.

It keeps every document (text, anchors, metadata, where it came from) and *pins* the version of the chunk table that
belongs to it. Both change in one SQLite transaction, so whatever was written to the chunk table and is not pinned never
happened. It opens in milliseconds: finding out that nothing changed needs no other store.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from longreach.errors import LibraryError, LibraryVersionError
from longreach.library.filters import Under, Where, condition, stored
from longreach.library.identity import anchors_from_json, anchors_to_json, decode, encode
from longreach.types import Document, DocumentInfo, MetadataValue

APPLICATION, FORMAT = 0x4C52_4348, 2
FILE = "catalog.sqlite"
_REMEMBERED = 16
_IN = 500
"""Parameters of one statement, well below SQLite's limit."""

_SCHEMA = """
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pins (generation INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL, chunks INTEGER NOT NULL,
    began REAL NOT NULL);
CREATE TABLE documents (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, source BLOB NOT NULL, metadata TEXT NOT NULL,
    media_type TEXT NOT NULL, characters INTEGER NOT NULL, chunks INTEGER NOT NULL, tokens INTEGER NOT NULL,
    hash TEXT NOT NULL, size INTEGER, mtime_ns INTEGER, extra TEXT);
CREATE INDEX documents_source ON documents (source);
CREATE TABLE texts (ordinal INTEGER PRIMARY KEY, text BLOB NOT NULL, anchors TEXT NOT NULL);
CREATE TABLE metadata (key BLOB, value, ordinal INTEGER, PRIMARY KEY (key, value, ordinal)) WITHOUT ROWID;
CREATE INDEX metadata_ordinal ON metadata (ordinal);
"""
_RECORD = "ordinal, id, source, hash, size, mtime_ns, extra"
_INFO = "ordinal, id, source, metadata, media_type, characters, chunks, hash"


class Pin(NamedTuple):
    """The version of the chunk table that counts (0: there is no table yet), and the number of its chunks. `generation`
    grows with every change of the library."""

    generation: int
    version: int
    chunks: int


class Selection(NamedTuple):
    """The documents that meet a filter, as runs of ordinals `(first, last)` in which every document does, and the
    number of their chunks."""

    runs: list[tuple[int, int]]
    chunks: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was when it was read: `size` in bytes, `mtime_ns`; `extra` is the metadata given to it, in JSON."""

    size: int
    mtime_ns: int
    extra: str


@dataclass(frozen=True, slots=True)
class Record:
    """What the catalog knows of a document before reading it again; `stamp` is None where it came from no file."""

    ordinal: int
    id: str
    source: str
    hash: str
    stamp: Stamp | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A document about to be written."""

    document: Document
    hash: str
    chunks: int
    tokens: int
    stamp: Stamp | None


class Catalog:
    """The catalog of the library in `folder`. Any thread may use it; each has its own connection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._selections: dict[tuple[Any, ...], Selection] = {}
        self._check()

    @classmethod
    def create(cls, folder: Path, header: dict[str, str]) -> Catalog:
        """Make a catalog in an existing folder, whole or not at all; the caller holds the writer's lock."""
        new = folder / f".new-{FILE}"
        for leftover in folder.glob(f"{new.name}*"):
            leftover.unlink()
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; BEGIN; {_SCHEMA}"
            )
            connection.executemany("INSERT INTO header VALUES (?, ?)", header.items())
            connection.execute("INSERT INTO pins (version, chunks, began) VALUES (0, 0, 0)")
            connection.execute("COMMIT")
        finally:
            connection.close()
        new.replace(folder / FILE)
        return cls(folder)

    def _check(self) -> None:
        connection = self._connection()
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise LibraryError(f"{self.folder} is no Longreach library: its {FILE} was made by something else")
        if (version := connection.execute("PRAGMA user_version").fetchone()[0]) > FORMAT:
            raise LibraryVersionError(
                f"the library {self.folder} was made by a newer version of Longreach (format {version}, this one reads "
                f"{FORMAT}): upgrade Longreach"
            )
        if version < FORMAT:
            raise LibraryVersionError(
                f"the library {self.folder} was made before version 0.1 of Longreach (format {version}, this one reads "
                f"{FORMAT}): index the documents into a new library"
            )

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            uri = (self.folder / FILE).absolute().as_uri()
            connection = self._open(f"{uri}?mode=rw")
            try:
                connection.execute("SELECT count(*) FROM sqlite_schema")
            except sqlite3.OperationalError:
                connection.close()  # a folder that may only be read: nobody writes to it, so no locks are needed
                connection = self._open(f"{uri}?immutable=1")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    @staticmethod
    def _open(uri: str) -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._local = threading.local()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One unchanging view of the catalog; nests."""
        connection = self._connection()
        if connection.in_transaction:
            yield connection
            return
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def header(self) -> dict[str, str]:
        """The settings that the library was made with."""
        with self.reading() as connection:
            return dict(connection.execute("SELECT key, value FROM header"))

    def pinned(self) -> Pin:
        """What counts now."""
        with self.reading() as connection:
            return Pin(
                *connection.execute(
                    "SELECT generation, version, chunks FROM pins ORDER BY generation DESC LIMIT 1"
                ).fetchone()
            )

    def superseded_before(self, moment: float) -> float:
        """No version that was still pinned at `moment` is older than the time returned."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT began FROM pins WHERE began <= ? ORDER BY generation DESC LIMIT 1", (moment,)
            ).fetchone()
            return float(row[0]) if row else 0.0

    def records(self) -> list[Record]:
        """Every document, without texts."""
        with self.reading() as connection:
            return [_record(row) for row in connection.execute(f"SELECT {_RECORD} FROM documents")]

    def record(self, document_id: str) -> Record | None:
        """One document, without its text."""
        with self.reading() as connection:
            row = connection.execute(f"SELECT {_RECORD} FROM documents WHERE id = ?", (encode(document_id),)).fetchone()
        return None if row is None else _record(row)

    def get(self, document_id: str) -> Document | None:
        """The document itself."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT id, source, metadata, media_type, text, anchors FROM documents JOIN texts USING (ordinal) "
                "WHERE id = ?",
                (encode(document_id),),
            ).fetchone()
        if row is None:
            return None
        text = decode(zlib.decompress(row[4]))
        return Document(decode(row[0]), text, decode(row[1]), json.loads(row[2]), anchors_from_json(row[5]), row[3])

    def infos(self, where: Where | None = None, under: Under = None) -> dict[int, DocumentInfo]:
        """The documents that meet the filters, by ordinal, in the order in which they came."""
        test, values = condition(where, under)
        with self.reading() as connection:
            rows = connection.execute(f"SELECT {_INFO} FROM documents WHERE {test} ORDER BY ordinal", values)
            return {row[0]: _info(row) for row in rows}

    def infos_of(self, ordinals: Iterable[int]) -> dict[int, DocumentInfo]:
        """The documents of these ordinals."""
        found: dict[int, DocumentInfo] = {}
        with self.reading() as connection:
            for part in _parts(list(set(ordinals))):
                marks = ", ".join("?" * len(part))
                rows = connection.execute(f"SELECT {_INFO} FROM documents WHERE ordinal IN ({marks})", part)
                found.update((row[0], _info(row)) for row in rows)
        return found

    def select(self, where: Where | None, under: Under) -> Selection:
        """The documents that meet the filters. The last few selections are remembered."""
        test, values = condition(where, under)
        with self.reading() as connection:
            asked = (self.pinned().generation, test, tuple(values))
            if asked not in self._selections:
                rows = connection.execute(f"SELECT ordinal, chunks, {test} FROM documents ORDER BY ordinal", values)
                if len(self._selections) >= _REMEMBERED:
                    self._selections.clear()
                self._selections[asked] = _selection(rows)
            return self._selections[asked]

    def totals(self) -> tuple[int, int, int, int]:
        """Documents, chunks, characters, tokens."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT count(*), total(chunks), total(characters), total(tokens) FROM documents"
            ).fetchone()
        return int(row[0]), int(row[1]), int(row[2]), int(row[3])

    def next_ordinal(self) -> int:
        """The ordinal that the next document gets; every writing of a document gets a new one."""
        with self.reading() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'documents'").fetchone()
        return int(row[0]) + 1 if row else 1


def pin(connection: sqlite3.Connection, version: int, began: float) -> int:
    """Let `version` of the chunk table, whose writing began at `began` (seconds since 1970), be the one that counts.
    Returns the new generation."""
    known = connection.execute("SELECT min(began) FROM pins WHERE version = ?", (version,)).fetchone()[0]
    began = began if known is None else known  # a version is as old as it was when it was pinned first
    connection.execute(
        "INSERT INTO pins (version, chunks, began) SELECT ?, coalesce(sum(chunks), 0), ? FROM documents",
        (version, began),
    )
    connection.execute("DELETE FROM pins WHERE generation < (SELECT max(generation) FROM pins) - 1000")
    return int(connection.execute("SELECT max(generation) FROM pins").fetchone()[0])


def insert(connection: sqlite3.Connection, ordinal: int, entry: Entry) -> None:
    """Write one document."""
    document, stamp = entry.document, entry.stamp
    about = (document.media_type, len(document.text), entry.chunks, entry.tokens, entry.hash)
    known = (stamp.size, stamp.mtime_ns, stamp.extra) if stamp else (None, None, None)
    metadata = json.dumps(dict(document.metadata))
    row: tuple[Any, ...] = (ordinal, encode(document.id), encode(document.source), metadata, *about, *known)
    connection.execute(f"INSERT INTO documents VALUES ({', '.join('?' * 12)})", row)
    text = zlib.compress(encode(document.text), 1)
    connection.execute("INSERT INTO texts VALUES (?, ?, ?)", (ordinal, text, anchors_to_json(document.anchors)))
    values: Iterable[tuple[str, MetadataValue]] = document.metadata.items()
    connection.executemany(
        "INSERT INTO metadata VALUES (?, ?, ?)",
        [(encode(key), stored(value), ordinal) for key, value in values if value == value],  # NaN compares with nothing
    )


def delete(connection: sqlite3.Connection, ordinals: Sequence[int]) -> None:
    """Take documents out."""
    rows = [(ordinal,) for ordinal in ordinals]
    for table in ("documents", "texts", "metadata"):
        connection.executemany(f"DELETE FROM {table} WHERE ordinal = ?", rows)


def restamp(connection: sqlite3.Connection, ordinal: int, stamp: Stamp) -> None:
    """Remember that a file with another time still says the same."""
    connection.execute(
        "UPDATE documents SET size = ?, mtime_ns = ?, extra = ? WHERE ordinal = ?",
        (stamp.size, stamp.mtime_ns, stamp.extra, ordinal),
    )


def set_header(connection: sqlite3.Connection, values: dict[str, str]) -> None:
    """Add or replace settings."""
    connection.executemany("INSERT OR REPLACE INTO header VALUES (?, ?)", values.items())


def _selection(rows: Iterable[tuple[int, int, int]]) -> Selection:
    runs: list[tuple[int, int]] = []
    total, within = 0, False
    for ordinal, chunks, holds in rows:
        if holds and within:
            runs[-1] = (runs[-1][0], ordinal)
        elif holds:
            runs.append((ordinal, ordinal))
        within = bool(holds)
        total += chunks if holds else 0
    return Selection(runs, total)


def _record(row: Sequence[Any]) -> Record:
    stamp = None if row[4] is None else Stamp(row[4], row[5], row[6])
    return Record(row[0], decode(row[1]), decode(row[2]), row[3], stamp)


def _info(row: Sequence[Any]) -> DocumentInfo:
    return DocumentInfo(decode(row[1]), decode(row[2]), json.loads(row[3]), row[4], row[5], row[6], row[7])


def _parts(items: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(items), _IN):
        yield items[start : start + _IN]
