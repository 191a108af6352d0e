"""Writing: documents are queued, chunked and embedded, and become part of the library a batch at a time.

A batch is whole documents. Its chunks go to the chunk table first; then one transaction of the catalog writes the
documents and pins the new version. Killed in between, the library is what it was before the batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from longreach.library import catalog as catalogs
from longreach.library import table as tables
from longreach.library.catalog import Catalog, Entry, Record, Stamp
from longreach.library.failures import reported
from longreach.library.identity import chunk_ids, content_hash, text_key
from longreach.library.values import AddReport, Progress, ProgressCallback
from longreach.types import Document, Span, TokenCounter

if TYPE_CHECKING:
    from longreach.corpus.chunk import Chunker
    from longreach.library.embed import Embedder, Vectors

BATCH_CHUNKS = 512
"""Chunks after which a batch is written: what an interruption can cost, against the price of a version."""
LOOSE_BATCHES = 64
"""Batches after which the chunk table is tidied even if its indices lack little."""
_EMBEDDED_AT_ONCE = 128


@dataclass
class Writer:
    """One run of writing; the caller holds the writer's lock. `put` and `remove` queue, `finish` completes the run."""

    catalog: Catalog
    table: tables.ChunkTable
    encoder: Callable[[], Embedder]
    chunker: Callable[[], Chunker]
    count: TokenCounter
    progress: ProgressCallback | None = None
    total: int = 0
    bytes_total: int = 0
    report: AddReport = field(default_factory=AddReport)
    _records: dict[str, Record | None] = field(default_factory=dict)  # what this run changed; ordinal -1 while queued
    _entries: list[Entry] = field(default_factory=list)
    _rows: list[list[dict[str, Any]]] = field(default_factory=list)
    _gone: list[int] = field(default_factory=list)
    _stamps: list[tuple[int, Stamp]] = field(default_factory=list)
    _done: int = 0
    _bytes: int = 0
    _queued_bytes: int = 0

    def put(self, document: Document, stamp: Stamp | None = None) -> None:
        """Add `document`, or let it take the place of the one with its id; nothing is done where both say the same."""
        digest = content_hash(document)
        known = self._known(document.id)
        size = stamp.size if stamp else len(document.text)
        if known is not None and known.hash == digest:
            if stamp is not None and stamp != known.stamp and known.ordinal >= 0:
                self._stamps.append((known.ordinal, stamp))
            self.unchanged(size)
            return
        if known is not None and known.ordinal < 0:  # queued in this very run under the same id
            self.flush()
            known = self._known(document.id)
        if known is None:
            self.report.added += 1
        else:
            self.report.updated += 1
            self._gone.append(known.ordinal)
        rows, tokens = self._chunks(document)
        self._entries.append(Entry(document, digest, len(rows), tokens, stamp))
        self._rows.append(rows)
        self._records[document.id] = Record(-1, document.id, document.source, digest, stamp)
        self._queued_bytes += size
        if sum(map(len, self._rows)) >= BATCH_CHUNKS:
            self.flush()

    def unchanged(self, size: int) -> None:
        """Count a document of `size` bytes that need not be touched."""
        self.report.unchanged += 1
        self._tell(1, size)

    def skip(self, path: str, reason: str, size: int = 0) -> None:
        """Count a file that cannot be read."""
        self.report.skipped.append((path, reason))
        self._tell(1, size)

    def remove(self, ids: Iterable[str]) -> None:
        """Take out the documents among `ids` that are in the library."""
        for document_id in ids:
            known = self._known(document_id)
            if known is not None and known.ordinal < 0:
                self.flush()
                known = self._known(document_id)
            if known is not None:
                self._gone.append(known.ordinal)
                self._records[document_id] = None
                self.report.removed += 1

    def flush(self) -> None:
        """Make what is queued part of the library."""
        if not (self._entries or self._gone or self._stamps):
            return
        began = time.time()
        rows = [row for rows in self._rows for row in rows]
        encoder = self.encoder() if rows else None
        with reported(self.catalog.folder):
            version = self.catalog.pinned().version
            first = self.catalog.next_ordinal()
            table = self.table.writable(version, encoder.dim if encoder else 0) if rows or version else None
        for ordinal, own in enumerate(self._rows, first):
            for row in own:
                row["document"] = ordinal
        vectors = self._embed(table, [row["text"] for row in rows])
        with reported(self.catalog.folder):
            if table is not None:
                tables.replace(table, self._gone, rows, vectors)
                version = table.version
            with self.catalog.writing() as connection:
                catalogs.delete(connection, self._gone)
                for ordinal, entry in enumerate(self._entries, first):
                    catalogs.insert(connection, ordinal, entry)
                for ordinal, stamp in self._stamps:
                    catalogs.restamp(connection, ordinal, stamp)
                if encoder:
                    made = {"fingerprint": encoder.fingerprint, "dim": str(encoder.dim)}
                    catalogs.set_header(connection, made)
                catalogs.pin(connection, version, began)
        for ordinal, entry in enumerate(self._entries, first):
            about = entry.document
            self._records[about.id] = Record(ordinal, about.id, about.source, entry.hash, entry.stamp)
        self.report.chunks += len(rows)
        written, size = len(self._entries), self._queued_bytes
        self._entries, self._rows, self._gone, self._stamps, self._queued_bytes = [], [], [], [], 0
        self._tell(written, size)

    def finish(self) -> AddReport:
        """Write what is queued, then bring the indices up to date and drop versions that nobody reads any more."""
        self.flush()
        with reported(self.catalog.folder):
            pin, header = self.catalog.pinned(), self.catalog.header()
            since = pin.generation - int(header.get("tidy", 0))
            if pin.version and since:
                table = self.table.writable(pin.version, 0)
                if since > LOOSE_BATCHES or tables.loose(table):
                    self.maintain(table, "nearest" in header)
        return self.report

    def maintain(self, table: Any, nearest: bool) -> None:
        """Tidy the chunk table; `nearest` tells whether it has an index for its vectors."""
        self._tell(0, 0, "updating the indices")
        began = time.time()
        nearest = tables.maintain(table, nearest)
        self._pin_tidy(table.version, began, nearest)
        tables.prune(table, self.catalog.superseded_before(time.time() - tables.KEPT))
        if table.version != self.catalog.pinned().version:
            self._pin_tidy(table.version, began, nearest)

    def _pin_tidy(self, version: int, began: float, nearest: bool) -> None:
        with self.catalog.writing() as connection:
            generation = catalogs.pin(connection, version, began)
            settings = {"tidy": str(generation), **({"nearest": "ivf_flat"} if nearest else {})}
            catalogs.set_header(connection, settings)

    def _known(self, document_id: str) -> Record | None:
        if document_id in self._records:
            return self._records[document_id]
        with reported(self.catalog.folder):
            return self.catalog.record(document_id)

    def _chunks(self, document: Document) -> tuple[list[dict[str, Any]], int]:
        """The rows of the chunk table that `document` gives, and their tokens."""
        spans: Sequence[Span] = self.chunker().chunk(document)
        texts = [document.text[span.start : span.end] for span in spans]
        many = getattr(self.count, "many", None)
        counts = many(texts) if many else [self.count(text) for text in texts]
        rows = []
        for id, span, text, tokens in zip(chunk_ids(document.id, texts), spans, texts, counts, strict=True):
            page = document.place(span.start).page if document.anchors else None
            about = json.dumps([span.start, span.end, tokens, page, span.section])
            rows.append({"id": id, "about": about, "text": _storable(text), "key": text_key(_storable(text))})
        return rows, sum(counts)

    def _embed(self, table: Any, texts: Sequence[str]) -> Vectors:
        """The vectors of `texts`; a text that is in the library, or comes twice, is not computed again."""
        import numpy as np

        if not texts:
            return np.zeros((0, 0), np.float32)
        with reported(self.catalog.folder):
            vectors = tables.vectors_of_texts(table, texts)
        missing = [text for text in dict.fromkeys(texts) if text not in vectors]
        missing.sort(key=len)
        for start in range(0, len(missing), _EMBEDDED_AT_ONCE):
            part = missing[start : start + _EMBEDDED_AT_ONCE]
            vectors.update(zip(part, self.encoder().embed_documents(part), strict=True))
            share = min(1.0, (start + len(part)) / len(missing))
            self._tell(0, 0, "embedding", ahead=int(self._queued_bytes * share))
        return np.stack([vectors[text] for text in texts]).astype(np.float32, copy=False)

    def _tell(self, documents: int, size: int, message: str = "", ahead: int = 0) -> None:
        self._done += documents
        self._bytes += size
        if self.progress:
            done = self._bytes + ahead
            self.progress(Progress(self._done, max(self.total, self._done), done, max(self.bytes_total, done), message))


def _storable(text: str) -> str:
    """`text` with each lone surrogate, which Arrow cannot hold, as one U+FFFD; equally long."""
    return text if text.isascii() else "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
