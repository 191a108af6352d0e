"""The library: documents, chunks and vectors on disk, in one directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from longreach.errors import InputError, LibraryError, LibraryVersionError
from longreach.files import bytes_on_disk
from longreach.library import catalog as catalogs
from longreach.library.catalog import Catalog
from longreach.library.defaults import DefaultCount, LaterEncoder, canonical_chunker
from longreach.library.failures import reported
from longreach.library.filters import Under, Where
from longreach.library.lock import sole_writer
from longreach.library.table import ChunkTable
from longreach.library.values import AddReport, LibraryStats, Progress, ProgressCallback
from longreach.library.view import View
from longreach.types import Chunk, Document, DocumentInfo, Hit, Metadata, Span, TokenCounter

if TYPE_CHECKING:
    from longreach.corpus.chunk import Chunker
    from longreach.library.embed import Embedder, Vectors

DEFAULT_CHUNKER = "sentence"
DEFAULT_ENCODER = "embedded"


class Library:
    """A library opened by `Library.open`. Any number of processes and threads may read it while one writes.

    Errors that any method may raise: LibraryError (damaged, not writable), LibraryBusyError (another process is writing
    for too long), DiskFullError.
    """

    def __init__(
        self,
        path: Path,
        catalog: Catalog,
        encoder: str | Embedder | None,
        count: TokenCounter | None,
        cache: Path,
        wait: float,
    ) -> None:
        self.path = path
        self._catalog = catalog
        self._table = ChunkTable(path)
        header = catalog.header()
        self.encoder_name = header["encoder"]
        self.chunker_spec = header["chunker"]
        self._given_encoder = encoder
        self._given_count = count
        self._cache = cache
        self._wait = wait
        self._loading = threading.RLock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        create: bool = False,
        encoder: str | Embedder | None = None,
        chunker: str | None = None,
        count: TokenCounter | None = None,
        cache: str | Path | None = None,
        wait: float = 300.0,
    ) -> Library:
        """Open the library in the folder `path`; with `create`, make it where there is none.

        `encoder` ("embedded", a Hugging Face id, a folder, or an object) and `chunker` (a spec) are settled when the
        library is made: None is what it was made with, for a new one "embedded" and "sentence". Neither is loaded
        before it is needed. `count` counts tokens as the answering model does; `cache` is where fetched models lie;
        `wait` is how long, in seconds, to wait for another process that is writing.
        Raises LibraryError where there is no library, LibraryVersionError where it was made by a newer version of
        Longreach, or with another encoder or chunker than the one asked for.
        """
        folder = Path(path).expanduser().absolute()
        if cache is None:
            from longreach.config import Settings

            cache = Settings.model_fields["cache"].default
        name = encoder if isinstance(encoder, str) or encoder is None else encoder.name
        if not (folder / catalogs.FILE).exists():
            if not create:
                what = "is no library" if folder.exists() else "does not exist"
                raise LibraryError(f"{folder} {what}: index some documents into it first")
            _make(
                folder,
                wait,
                {"encoder": name or DEFAULT_ENCODER, "chunker": canonical_chunker(chunker or DEFAULT_CHUNKER)},
            )
        with reported(folder):
            catalog = Catalog(folder)
            made_with = catalog.header()
        asked = {"encoder": name, "chunker": canonical_chunker(chunker) if chunker else None}
        for what, wanted in asked.items():
            if wanted is not None and wanted != made_with[what]:
                catalog.close()
                raise LibraryVersionError(
                    f"the library {folder} was made with the {what} {made_with[what]}, not {wanted}: open it with that "
                    "one, or index the documents into a new library"
                )
        with reported(folder):
            return cls(folder, catalog, encoder, count, Path(cache), wait)

    def add(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        metadata: Metadata | None = None,
        progress: ProgressCallback | None = None,
    ) -> AddReport:
        """Bring the library up to date with files and folders: new and changed files are read, files gone from a folder
        among `paths` are removed, unchanged files cost nothing. `metadata` is added to each document's own; None leaves
        what was given before.

        Interrupted at any moment, the library is whole, and the next `add` goes on where this one was. Raises
        InputError for a path that does not exist.
        """
        from longreach.library.sources import add_paths

        chosen = [paths] if isinstance(paths, str | Path) else list(paths)
        with self._writing(progress) as writer:
            add_paths(writer, chosen, metadata)
        return _done(writer)

    def add_text(self, id: str, text: str, metadata: Metadata | None = None, source: str = "") -> AddReport:
        """Add one text, or let it take the place of the document with this id."""
        return self.add_documents([Document(id, text, source, dict(metadata or {}))])

    def add_documents(self, documents: Iterable[Document], progress: ProgressCallback | None = None) -> AddReport:
        """Add documents, or let them take the place of those with their ids."""
        with self._writing(progress) as writer:
            for document in documents:
                writer.put(document)
        return _done(writer)

    def remove(self, ids: str | Iterable[str]) -> AddReport:
        """Remove documents by their ids; ids that are not in the library are passed over."""
        with self._writing(None) as writer:
            writer.remove([ids] if isinstance(ids, str) else ids)
        return _done(writer)

    def get(self, id: str) -> Document:
        """The document as it was added. Raises InputError where there is none of this id."""
        with reported(self.path):
            document = self._catalog.get(id)
        if document is None:
            raise InputError(f"no document in {self.path} has the id {id!r}")
        return document

    def cut(self, document: Document) -> list[tuple[str, int]]:
        """The texts of the chunks that `document` would have here, with their tokens; nothing is added."""
        texts = [document.text[span.start : span.end] for span in self._chunker.chunk(document)]
        return [(text, self._count(text)) for text in texts]

    def spans(self, document: Document) -> list[Span]:
        """Where `document` would be cut here; nothing is added."""
        return self._chunker.chunk(document)

    def documents(self, where: Where | None = None, under: Under = None) -> list[DocumentInfo]:
        """The documents whose metadata meets `where` and whose source is, or lies in, one of `under`; oldest first."""
        with reported(self.path):
            return list(self._catalog.infos(where, under).values())

    def stats(self) -> LibraryStats:
        """Sizes and settings."""
        with reported(self.path):
            documents, chunks, characters, tokens = self._catalog.totals()
            size = bytes_on_disk(self.path)
            dim = int(self._catalog.header().get("dim", 0))
        return LibraryStats(documents, chunks, characters, tokens, size, self.encoder_name, self.chunker_spec, dim)

    def search(
        self,
        query: str,
        k: int = 10,
        retriever: str = "hybrid",
        where: Where | None = None,
        under: Under = None,
        reranker: str = "none",
    ) -> list[Hit]:
        """The `k` chunks that best match `query`; see `longreach.search.search`."""
        from longreach.search import search

        return search(self, query, k, retriever=retriever, reranker=reranker, where=where, under=under)

    def lexical(self, query: str, k: int, where: Where | None = None, under: Under = None) -> list[Hit]:
        """The `k` chunks with the highest BM25 score."""
        with self.view(where, under) as view:
            return view.hits([(row, score, {"bm25": score}) for row, score in view.lexical(query, k).items()])

    def nearest(self, vector: Vectors, k: int, where: Where | None = None, under: Under = None) -> list[Hit]:
        """The `k` chunks whose vectors have the greatest inner product with `vector`."""
        with self.view(where, under) as view:
            return view.hits([(row, score, {"dense": score}) for row, score in view.nearest(vector, k).items()])

    def chunks(self, ids: Sequence[str]) -> list[Chunk]:
        """Chunks by their ids, in that order; ids that are not in the library are left out."""
        with self.view() as view:
            return view.chunks_of(ids)

    @contextmanager
    def view(self, where: Where | None = None, under: Under = None) -> Iterator[View]:
        """The library as it is now, narrowed by filters; it does not change while the view is open."""
        with self._catalog.reading():
            with reported(self.path):
                pin = self._catalog.pinned()
                chosen = None if not where and under is None else self._catalog.select(where, under)
                if pin.version:
                    self._table.at(pin.version)
            yield View(self._catalog, self._table, pin.version, pin.chunks, chosen)

    @cached_property
    def encoder(self) -> Embedder:
        """The encoder, loaded when first asked for. Raises LibraryVersionError where its vectors are not those of the
        library."""
        with self._loading:
            given = self._given_encoder
            if given is None or isinstance(given, str):
                from longreach.library.embed import load_encoder

                given = load_encoder(self.encoder_name, cache=self._cache)
            known = self._catalog.header().get("fingerprint", given.fingerprint)
        if known != given.fingerprint:
            raise LibraryVersionError(
                f"the encoder {given.name!r} is not the one that the library {self.path} was made with, though it has "
                "the same name: index the documents into a new library"
            )
        return given

    def close(self) -> None:
        """Let go of the files; the library may be opened again."""
        self._catalog.close()
        self._table.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _writing(self, progress: ProgressCallback | None) -> Iterator[Any]:
        from longreach.library.writer import Writer

        began = time.perf_counter()

        def told(message: str) -> None:
            if progress:
                progress(Progress(0, 0, 0, 0, message))

        with sole_writer(self.path, self._wait, told):
            writer = Writer(
                self._catalog, self._table, lambda: self.encoder, lambda: self._chunker, self._count, progress
            )
            yield writer
            report = writer.finish()
        report.seconds = time.perf_counter() - began

    @cached_property
    def _chunker(self) -> Chunker:
        from longreach.corpus.chunk import chunkers

        return chunkers.make(self.chunker_spec, count=self._count, encoder=LaterEncoder(self))

    @cached_property
    def _count(self) -> TokenCounter:
        return self._given_count or DefaultCount(self._cache)


def _done(writer: Any) -> AddReport:
    report: AddReport = writer.report
    return report


def _make(folder: Path, wait: float, header: Mapping[str, str]) -> None:
    with reported(folder):
        # Looked at in this order: another process may be making the library meanwhile.
        if folder.exists() and _others(folder) and not (folder / catalogs.FILE).exists():
            raise LibraryError(f"{folder} is neither empty nor a library: choose another place")
        folder.mkdir(parents=True, exist_ok=True)
        with sole_writer(folder, wait):
            if not (folder / catalogs.FILE).exists():
                Catalog.create(folder, dict(header)).close()


def _others(folder: Path) -> bool:
    """Whether something other than the beginnings of a library lies here."""
    return not folder.is_dir() or any(not file.name.startswith((".new-", "writer")) for file in folder.iterdir())
