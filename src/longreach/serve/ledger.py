"""Whose bytes lie here: what each key has uploaded and nobody has deleted."""

from __future__ import annotations

import sqlite3

from longreach.serve.refusals import Refusal

TABLE = """
CREATE TABLE IF NOT EXISTS ledger (
  upload TEXT PRIMARY KEY, number INTEGER NOT NULL, owner TEXT NOT NULL, library TEXT NOT NULL, document TEXT NOT NULL,
  bytes INTEGER NOT NULL
)"""


def used(connection: sqlite3.Connection, owner: str) -> int:
    """The bytes that count for a key: of its documents and of its uploads on their way."""
    row = connection.execute("SELECT COALESCE(SUM(bytes), 0) FROM ledger WHERE owner = ?", (owner,)).fetchone()
    return int(row[0])


def check(connection: sqlite3.Connection, owner: str, size: int, quota: int) -> None:
    """Raises Refusal, 413, where `size` bytes more are too many for a key that may have `quota` (0: any number)."""
    if not quota:
        return
    have = used(connection, owner)
    if have + size > quota:
        message = f"this key may keep {quota} bytes of documents and has {have}: {size} more are too many; delete some"
        raise Refusal(413, message, code="quota_exceeded")


def charge(
    connection: sqlite3.Connection, upload: str, number: int, owner: str, library: str, document: str, size: int
) -> None:
    """Count an upload for its key."""
    row = (upload, number, owner, library, document, size)
    connection.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", row)


def settle(connection: sqlite3.Connection, upload: str) -> None:
    """An upload has become its document: what the document was before counts no more."""
    connection.execute(
        "DELETE FROM ledger WHERE EXISTS (SELECT 1 FROM ledger AS new WHERE new.upload = ?"
        " AND new.library = ledger.library AND new.document = ledger.document AND new.number > ledger.number)",
        (upload,),
    )


def drop(connection: sqlite3.Connection, upload: str) -> None:
    """An upload came to nothing."""
    connection.execute("DELETE FROM ledger WHERE upload = ?", (upload,))


def release(connection: sqlite3.Connection, library: str, document: str | None = None) -> None:
    """A library, or one document of it, was deleted: only what is on its way to it still counts."""
    where = "library = ? AND upload NOT IN (SELECT id FROM uploads WHERE status NOT IN ('done', 'failed'))"
    values = [library]
    if document is not None:
        where, values = f"{where} AND document = ?", [library, document]
    connection.execute(f"DELETE FROM ledger WHERE {where}", values)
