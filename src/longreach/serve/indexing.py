"""From uploads to documents, in the background."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from logging import Logger

from longreach.errors import DiskFullError, DocumentError, EndedError, LibraryBusyError, LongreachError
from longreach.library import Progress
from longreach.serve.journal import Journal, Upload
from longreach.serve.options import ServeOptions
from longreach.serve.parse import parse
from longreach.serve.refusals import Refusal
from longreach.serve.shelf import Shelf
from longreach.types import Document

TOGETHER, TOGETHER_BYTES = 32, 8 << 20
"""Uploads that become part of their library in one go: each time costs the library a version."""
TELL = 0.5
"""Seconds between two notes of how far an upload is: each is written to the disk."""


class Indexer:
    """One thread, which gives way to those who wait for an answer."""

    def __init__(self, shelf: Shelf, journal: Journal, options: ServeOptions, log: Logger) -> None:
        self._shelf = shelf
        self._journal = journal
        self._options = options
        self._log = log
        self._wanted = threading.Event()
        self._ending = threading.Event()
        self._told = 0.0
        self._thread = threading.Thread(target=self._run, name="longreach-indexing", daemon=True)

    def start(self) -> None:
        """Begin with what was left by the last run."""
        waiting = self._journal.resume()
        if waiting:
            self._log.info("uploads resumed", extra={"fields": {"uploads": waiting}})
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wanted.set()

    def stop(self) -> None:
        """End; what is under way goes on after the next start."""
        self._ending.set()
        self._wanted.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=30)

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while not self._ending.is_set():
            self._wanted.clear()
            try:
                uploads = self._journal.next(TOGETHER, TOGETHER_BYTES)
                if uploads:
                    self._index(uploads)
                else:
                    self._wanted.wait()
            except EndedError:
                return
            except Exception as error:  # a full disk, most likely: nothing is lost, and it is tried again
                self._log.warning("indexing waits", extra={"fields": {"error": type(error).__name__}})
                self._ending.wait(self._options.retry_seconds)

    def _index(self, uploads: Sequence[Upload]) -> None:
        read: list[tuple[Upload, Document]] = []
        for upload in uploads:
            if self._ending.is_set():
                raise EndedError("the server is ending")
            if not self._journal.set(upload.id, "reading"):
                continue
            try:
                read.append((upload, self._read(upload)))
            except DocumentError as error:
                self._journal.set(upload.id, "failed", 0.0, str(error))
        here = [upload for upload, _ in read if self._journal.set(upload.id, "indexing")]
        documents = [document for upload, document in read if upload in here]
        if not documents:
            return
        try:
            library = self._shelf.writable(here[0].library)
            library.add_documents(documents, progress=lambda step: self._tell(here, step))
        except (DiskFullError, LibraryBusyError) as error:
            for upload in here:
                self._journal.set(upload.id, "queued", 0.0, str(error))
            raise
        except (LongreachError, Refusal) as error:
            if isinstance(error, EndedError):
                raise
            for upload in here:
                self._journal.set(upload.id, "failed", 0.0, "the library cannot be written to")
            self._log.error("indexing failed", extra={"fields": {"error": type(error).__name__}})
            return
        gone = [upload.document for upload in here if not self._journal.set(upload.id, "done", 1.0)]
        if gone:  # deleted while it was added; maybe the library was, too
            with contextlib.suppress(LongreachError):
                library.remove(gone)

    def _read(self, upload: Upload) -> Document:
        content = self._journal.content(upload.id)
        try:
            if upload.kind == "file":
                document = parse(content, upload.document, self._options)
            else:
                text = content.read_bytes().decode("utf-8", "surrogatepass")
                document = Document(upload.document, text, upload.document, {"name": upload.document})
        except FileNotFoundError:
            raise DocumentError("it was taken back") from None
        return replace(document, metadata={**document.metadata, **upload.metadata})

    def _tell(self, uploads: Sequence[Upload], step: Progress) -> None:
        if self._ending.is_set():
            raise EndedError("the server is ending")
        now = time.monotonic()
        if now - self._told < TELL:
            return
        self._told = now
        total = sum(upload.bytes for upload in uploads)
        share = min(0.99, step.bytes_done / total) if total else 0.0
        for upload in uploads:
            self._journal.set(upload.id, "indexing", share)
