"""API keys: who may use the server, and what of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from longreach.errors import InputError, LongreachError

FILE = "keys.sqlite"
ALL = "*"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, tenant TEXT NOT NULL, libraries TEXT NOT NULL,
  write INTEGER NOT NULL, per_minute INTEGER NOT NULL, created REAL NOT NULL, revoked REAL,
  quota INTEGER NOT NULL DEFAULT 0
)"""
_QUOTA = "ALTER TABLE keys ADD COLUMN quota INTEGER NOT NULL DEFAULT 0"
"""For a table that was made before there were quotas."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a key may do: ask of its `libraries` ("*" is all), change them if it may `write`, `per_minute` requests a
    minute (0: as many as it likes), and keep `quota` bytes of documents here (0: any number). What is read for one
    `tenant` is never reused for another. Times are seconds since 1970; `revoked` is None while the key is good."""

    id: str
    name: str
    tenant: str
    libraries: Sequence[str] = (ALL,)
    write: bool = False
    per_minute: int = 0
    created: float = 0.0
    revoked: float | None = None
    quota: int = 0

    def may_read(self, library: str) -> bool:
        return ALL in self.libraries or library in self.libraries

    @property
    def everything(self) -> bool:
        """Whether it may look at the server as a whole."""
        return ALL in self.libraries


class KeyStore:
    """The keys in `folder`, in one SQLite file that only its owner may read. A key's secret is not in it: what is kept
    is a SHA-256 hash, which suffices for 256 random bits that nobody can guess. Several processes may use it at
    once."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def create(
        self,
        name: str,
        *,
        libraries: Sequence[str] = (ALL,),
        write: bool = False,
        per_minute: int = 0,
        tenant: str = "",
        quota: int = 0,
    ) -> tuple[Key, str]:
        """A new key with its secret, which cannot be had again. `tenant`: keys of one tenant share what is reused; ""
        is the key alone. Raises InputError."""
        for value, what in ((name, "name"), (tenant or "x", "tenant")):
            if not _NAME.fullmatch(value):
                raise InputError(f"{value!r} is no {what} for a key: take letters, digits, dots and dashes, 64 at most")
        if per_minute < 0 or quota < 0:
            raise InputError(f"per_minute={per_minute} and quota={quota} must be 0 or more")
        if not libraries:
            raise InputError('a key needs a library that it may ask, or "*" for all')
        identity = secrets.token_hex(6)
        secret = f"lr-{identity}-{secrets.token_urlsafe(32)}"
        # A tenant's name cannot be that of a key by itself: "key:" is not made of what names are made of.
        key = Key(
            identity, name, tenant or f"key:{identity}", tuple(libraries), write, per_minute, time.time(), None, quota
        )
        with self._opened(create=True) as connection:
            assert connection is not None
            if connection.execute("SELECT 1 FROM keys WHERE name = ? AND revoked IS NULL", (name,)).fetchone():
                raise InputError(f"there is a key called {name!r} already: revoke it first, or take another name")
            asked = (json.dumps(list(libraries)), write, per_minute, key.created, quota)
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
                (key.id, name, _hash(secret), key.tenant, *asked),
            )
        return key, secret

    def list(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""
        with self._opened() as connection:
            if connection is None:
                return []
            return [_key(row) for row in connection.execute("SELECT * FROM keys ORDER BY created, id")]

    def revoke(self, name: str) -> Key:
        """Let the key with this name or id be good no more. Raises InputError where there is none."""
        with self._opened() as connection:
            rows = (
                [] if connection is None else connection.execute("SELECT * FROM keys WHERE revoked IS NULL").fetchall()
            )
            key = next((key for key in map(_key, rows) if name in (key.id, key.name)), None)
            if connection is None or key is None:
                raise InputError(f"no key in use is called {name!r}: `longreach keys list` shows them")
            connection.execute("UPDATE keys SET revoked = ? WHERE id = ?", (time.time(), key.id))
        return key

    def find(self, secret: str) -> Key | None:
        """The key with this secret, if it is good."""
        parts = secret.split("-", 2)
        if len(parts) != 3 or parts[0] != "lr":
            return None
        with self._opened() as connection:
            if connection is None:
                return None
            row = connection.execute("SELECT * FROM keys WHERE id = ? AND revoked IS NULL", (parts[1],)).fetchone()
        if row is None or not hmac.compare_digest(row["hash"], _hash(secret)):
            return None
        return _key(row)

    def good(self, identity: str) -> Key | None:
        """The key with this id, if it is good."""
        with self._opened() as connection:
            if connection is None:
                return None
            row = connection.execute("SELECT * FROM keys WHERE id = ? AND revoked IS NULL", (identity,)).fetchone()
        return None if row is None else _key(row)

    def any(self) -> bool:
        """Whether there ever was a key: then there is no getting in without one, even if all are revoked."""
        with self._opened() as connection:
            return connection is not None and connection.execute("SELECT 1 FROM keys").fetchone() is not None

    @contextmanager
    def _opened(self, *, create: bool = False) -> Iterator[sqlite3.Connection | None]:
        if not create and not self._file.exists():
            yield None
            return
        try:
            if create and not self._file.exists():
                self._file.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self._file, timeout=10)
        except (OSError, sqlite3.Error) as error:
            raise LongreachError(f"the keys in {self._file} cannot be read: {error}") from None
        try:
            connection.row_factory = sqlite3.Row
            connection.execute(_TABLE)
            if "quota" not in {column["name"] for column in connection.execute("PRAGMA table_info(keys)")}:
                connection.execute(_QUOTA)
            with connection:
                yield connection
        except sqlite3.Error as error:
            raise LongreachError(f"the keys in {self._file} cannot be read or written: {error}") from None
        finally:
            connection.close()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _key(row: sqlite3.Row) -> Key:
    return Key(
        row["id"],
        row["name"],
        row["tenant"],
        tuple(json.loads(row["libraries"])),
        bool(row["write"]),
        row["per_minute"],
        row["created"],
        row["revoked"],
        row["quota"],
    )
