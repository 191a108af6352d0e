"""The chunk table: text, terms and vectors of every chunk, in Lance, by version.

A reader opens the version that the catalog pins and sees nothing else. The one writer adds versions on top; whatever
lies above the pinned version when it starts was never finished and is undone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from longreach.library.identity import text_key
from longreach.library.loops import Loops

if TYPE_CHECKING:
    import pyarrow as pa

    from longreach.library.embed import Vectors

T = TypeVar("T")
NAME = "chunks"
EXACT = 20_000
"""Chunks up to which a nearest-neighbour search compares with every vector."""
PARTITION = 200
"""Chunks in a partition of the vector index; Lance splits and joins partitions to stay near it."""
PROBED = 32
"""One partition in so many is searched."""
_FOREVER = timedelta(days=365 * 100)
INDEX_CACHE, METADATA_CACHE = 512 << 20, 128 << 20
"""Bytes of indices and of metadata that Lance keeps in memory."""
RENEWED = 16
"""Versions after which these caches are begun anew: they hold on to the files of all versions that they have seen, also
when these are long deleted."""
KEPT = 600.0
"""Seconds for which a version that a reader may still hold is kept after it is superseded."""


class ChunkTable:
    """The chunk table in `folder`; any thread may read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._loops = Loops()
        self._caches: Any = None
        self._database: Any = None
        self._reads: Any = None
        self._open: tuple[int, Any, Any] | None = None
        self._seen = 0

    def at(self, version: int) -> Any:
        """The table as it was at `version`, to be read only."""
        return self._opened(version)[1]

    def reads(self, version: int) -> Any:
        """The same, for coroutines."""
        return self._opened(version)[2]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Complete a coroutine that reads."""
        return self._loops.run(work)

    def close(self) -> None:
        """Let go of what reading holds."""
        self._loops.close()

    def _opened(self, version: int) -> tuple[int, Any, Any]:
        with self._lock:
            if self._open is None or self._open[0] != version:
                self._note_version()
                table = self._connect().open_table(NAME, version=version)
                self._open = (version, table, self.run(self._open_reads(version)))
            return self._open

    def _note_version(self) -> None:
        """Connect anew where the caches have seen enough versions; who still uses a table of before goes on."""
        self._seen += 1
        if self._seen >= RENEWED:
            self._seen, self._caches, self._database, self._reads = 0, None, None, None

    async def _open_reads(self, version: int) -> Any:
        import lancedb

        if self._reads is None:
            self._reads = await lancedb.connect_async(self.folder, session=self._session())
        table = await self._reads.open_table(NAME)
        await table.checkout(version)
        return table

    def writable(self, version: int, dim: int) -> Any:
        """The newest state of the table, made equal to `version` first; version 0 makes the table anew."""
        with self._lock:
            self._note_version()
            database = self._connect()
        if version == 0:
            return self._create(database, dim)
        table = database.open_table(NAME)
        if table.version != version:
            table.checkout(version)
            table.restore()
        return table

    def _connect(self) -> Any:
        if self._database is None:
            import lancedb

            self._database = lancedb.connect(self.folder, session=self._session())
        return self._database

    def _session(self) -> Any:
        """The caches, which all connections share."""
        if self._caches is None:
            import lancedb

            self._caches = lancedb.Session(index_cache_size_bytes=INDEX_CACHE, metadata_cache_size_bytes=METADATA_CACHE)
        return self._caches

    def _create(self, database: Any, dim: int) -> Any:
        from lancedb.index import FTS, BTree

        if (self.folder / f"{NAME}.lance").exists():  # of a writer that died before it could pin anything
            database.drop_table(NAME)
        table = database.create_table(NAME, schema=schema(dim))
        table.create_index("text", config=FTS(with_position=False))
        table.create_index("document", config=BTree())
        return table


def schema(dim: int) -> pa.Schema:
    """The columns of the chunk table. `document` is an ordinal of the catalog, `key` the `text_key` of the text,
    `about` a JSON list of start, end, tokens, page and section: fetching a row costs by its columns."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("document", pa.int64()),
            ("about", pa.string()),
            ("text", pa.string()),
            ("key", pa.int64()),
            ("vector", pa.list_(pa.float32(), dim)),
        ]
    )


def replace(table: Any, gone: Sequence[int], rows: Sequence[dict[str, Any]], vectors: Vectors) -> None:
    """Take the chunks of the documents `gone` out and put `rows` with their `vectors` in. Two versions at most."""
    import pyarrow as pa

    for start in range(0, len(gone), 10_000):
        table.delete(f"document IN ({', '.join(map(str, gone[start : start + 10_000]))})")
    if rows:
        wanted = schema(vectors.shape[1])
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in wanted.names if name != "vector"}
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table.add(pa.table(columns, schema=wanted))


def vectors_of_texts(table: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The vectors of those `texts` that are in the table already."""
    found: dict[str, Any] = {}
    keys = sorted({text_key(text) for text in texts})
    wanted = set(texts)
    for start in range(0, len(keys), 1000):
        among = ", ".join(map(str, keys[start : start + 1000]))
        rows = table.search().where(f"key IN ({among})").select(["text", "vector"]).limit(None).to_arrow()
        for text, vector in zip(rows["text"].to_pylist(), matrix(rows), strict=True):
            if text in wanted:
                found.setdefault(text, vector)
    return found


def matrix(rows: Any) -> Any:
    """The column `vector` of an Arrow table as `[rows, dim]`."""
    import numpy as np

    column = rows["vector"].combine_chunks()
    dim = column.type.list_size
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim).astype(np.float32, copy=False)


def loose(table: Any) -> bool:
    """Whether so many rows are missing from the indices that searches suffer."""
    missing, rows = int(table.index_stats("text_idx").num_unindexed_rows), int(table.count_rows())
    return missing > rows // 100


def maintain(table: Any, nearest: bool) -> bool:
    """Merge small fragments and bring the indices up to date; nothing that a pinned version needs is touched.

    `nearest` tells whether the vectors have an index; they get one when there are more than `EXACT`. Returns whether
    they have one now.
    """
    from lancedb.index import IvfFlat

    table.optimize(cleanup_older_than=_FOREVER)
    if not nearest and table.count_rows() > EXACT:
        table.create_index("vector", config=IvfFlat(distance_type="dot", target_partition_size=PARTITION))
        return True
    return nearest


def prune(table: Any, kept_from: float) -> None:
    """Delete versions written before `kept_from` (seconds since 1970), and files that no version uses."""
    age = max(time.time() - kept_from, KEPT)
    table.optimize(cleanup_older_than=timedelta(seconds=age), delete_unverified=True)
