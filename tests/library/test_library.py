"""What a library promises to one process."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hashed import HashingEncoder
from longreach.errors import DiskFullError, InputError, LibraryError, LibraryVersionError
from longreach.library import Library, Progress
from longreach.library.catalog import FILE, Catalog
from longreach.types import Anchor, Document

Opener = Callable[..., Library]
ODD = "a\ud800b \x00 \u200d 日本 \U0001f600 \ufffd"


def test_a_document_comes_back_exactly(opened: Opener) -> None:
    anchors = (Anchor("page", 0, "1"), Anchor("heading", 4, f"Title {ODD}", 2))
    document = Document(
        f"id {ODD}", f"text {ODD}\r\n end", f"/source/{ODD}", {"key": ODD, "n": 1, "x": 0.5}, anchors, "x/y"
    )
    library = opened()
    library.add_documents([document])
    assert library.get(document.id) == document


def test_chunks_are_spans_of_their_document(opened: Opener) -> None:
    library = opened()
    library.add_text("odd", " ".join(f"word{i} {ODD}" for i in range(50)))
    hits = library.search("word7", k=100)
    assert len(hits) == library.stats().chunks > 1
    for hit in hits:
        assert library.get("odd").text[hit.chunk.start : hit.chunk.end] == hit.text


def test_chunk_ids_stay_while_the_text_does(opened: Opener) -> None:
    library = opened()
    same = " ".join(f"w{i}" for i in range(20))
    library.add_text("a", f"{same} {same}")
    before = {hit.chunk.start: hit.chunk.id for hit in library.search("w1", k=9)}
    assert len(set(before.values())) == len(before)
    library.add_text("a", f"{same} {same} and more")
    after = {hit.chunk.start: hit.chunk.id for hit in library.search("w1", k=9)}
    assert before[0] == after[0]
    assert all(len(id) == 20 and int(id, 16) >= 0 for id in after.values())


def test_adding_the_same_again_does_nothing(opened: Opener) -> None:
    encoder = HashingEncoder()
    library = opened(encoder=encoder)
    library.add_text("a", "some words")
    embedded = list(encoder.seen)
    report = library.add_text("a", "some words")
    assert (report.added, report.updated, report.unchanged, report.chunks) == (0, 0, 1, 0)
    assert encoder.seen == embedded


def test_a_text_is_embedded_once(opened: Opener) -> None:
    encoder = HashingEncoder()
    library = opened(encoder=encoder)
    library.add_documents([Document("a", "the same words"), Document("b", "the same words")])
    library.add_text("c", "the same words")
    assert encoder.seen == ["the same words"]
    assert {hit.document.id for hit in library.search("same")} == {"a", "b", "c"}


def test_an_update_takes_the_place_of_what_was_there(opened: Opener) -> None:
    library = opened()
    library.add_text("a", "zebra", {"v": 1})
    report = library.add_text("a", "giraffe", {"v": 2})
    assert (report.added, report.updated) == (0, 1)
    assert library.search("zebra", retriever="bm25") == []
    assert [hit.document.metadata for hit in library.search("giraffe")] == [{"v": 2}]


def test_the_last_of_documents_with_one_id_counts(opened: Opener) -> None:
    library = opened()
    library.add_documents([Document("a", "one"), Document("a", "two"), Document("a", "two")])
    assert library.get("a").text == "two"
    assert library.stats().chunks == 1


def test_removed_documents_are_gone(opened: Opener) -> None:
    library = opened()
    library.add_documents([Document("a", "one fish"), Document("b", "two fish")])
    assert library.remove(["a", "unknown"]).removed == 1
    assert [hit.document.id for hit in library.search("fish")] == ["b"]
    with pytest.raises(InputError, match="'a'"):
        library.get("a")


def test_an_empty_text_is_a_document_without_chunks(opened: Opener) -> None:
    library = opened()
    library.add_text("empty", "")
    assert library.get("empty").text == ""
    assert library.documents()[0].chunks == 0
    assert library.search("anything") == []


def test_chunks_are_found_by_their_ids(opened: Opener) -> None:
    library = opened()
    library.add_text("a", "one fish two fish")
    chunk = library.search("fish")[0].chunk
    assert library.chunks([chunk.id, "0" * 20, "' OR 1=1 --"]) == [chunk]


def test_stats_count_what_is_there(opened: Opener) -> None:
    library = opened()
    library.add_documents([Document("a", "one two three"), Document("b", "four five")])
    stats = library.stats()
    assert (stats.documents, stats.chunks, stats.characters, stats.tokens, stats.dim) == (2, 2, 22, 5, 64)
    assert stats.bytes > 0
    assert stats.encoder == "hashing"


def test_another_handle_sees_what_was_written(opened: Opener) -> None:
    writer, reader = opened(), opened()
    writer.add_text("a", "zebra")
    assert [hit.document.id for hit in reader.search("zebra")] == ["a"]
    writer.add_text("a", "giraffe")
    assert reader.search("zebra", retriever="bm25") == []


def test_an_open_view_does_not_change(opened: Opener) -> None:
    library, other = opened(), opened()
    library.add_text("a", "zebra")
    with library.view() as view:
        thread = threading.Thread(target=other.add_text, args=("b", "zebra"))
        thread.start()
        thread.join()
        assert [hit.document.id for hit in view.hits([(row, 1.0, {}) for row in view.lexical("zebra", 9)])] == ["a"]
    assert {hit.document.id for hit in library.search("zebra")} == {"a", "b"}


def test_threads_may_write_at_once(opened: Opener) -> None:
    library = opened()
    threads = [threading.Thread(target=library.add_text, args=(f"d{i}", f"word{i}")) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {info.id for info in library.documents()} == {f"d{i}" for i in range(6)}
    assert library.stats().chunks == 6


def test_progress_reaches_the_end(opened: Opener) -> None:
    told: list[Progress] = []
    opened().add_documents((Document(f"d{i}", f"word{i}") for i in range(3)), progress=told.append)
    assert (told[-1].done, told[-1].total) == (3, 3)
    assert [one.done for one in told] == sorted(one.done for one in told)


def test_what_lies_above_the_pin_is_undone(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened()
    library.add_text("a", "zebra")
    monkeypatch.setattr("longreach.library.catalog.pin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        library.add_text("b", "giraffe")
    monkeypatch.undo()
    for again in (library, opened()):
        assert [info.id for info in again.documents()] == ["a"]
        assert again.search("giraffe", retriever="bm25") == []
    library.add_text("c", "ape")
    assert {hit.document.id for hit in library.search("zebra giraffe ape", retriever="bm25")} == {"a", "c"}


def test_no_library_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="does not exist"):
        Library.open(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(LibraryError, match="no library"):
        Library.open(tmp_path / "folder")
    with pytest.raises(LibraryError, match="neither empty nor a library"):
        Library.open(tmp_path / "folder", create=True)


def test_a_newer_library_is_an_error_that_says_so(opened: Opener, tmp_path: Path) -> None:
    opened().close()
    connection = sqlite3.connect(tmp_path / "notes.library" / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LibraryVersionError, match="newer version"):
        opened()


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be looked at" * 50])
def test_a_damaged_catalog_is_an_error_that_says_so(opened: Opener, tmp_path: Path, content: bytes) -> None:
    opened().close()
    (tmp_path / "notes.library" / FILE).write_bytes(content)
    with pytest.raises(LibraryError):
        opened()


def test_a_damaged_chunk_table_is_an_error_that_says_so(opened: Opener, tmp_path: Path) -> None:
    library = opened()
    library.add_text("a", "zebra")
    library.close()
    for file in (tmp_path / "notes.library" / "chunks.lance").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with pytest.raises(LibraryError, match="damaged"):
        opened().search("zebra")


def test_another_encoder_is_an_error_that_says_so(opened: Opener) -> None:
    opened().add_text("a", "zebra")
    with pytest.raises(LibraryVersionError, match="the encoder hashing, not embedded"):
        opened(encoder="embedded")
    changed = opened(encoder=HashingEncoder(fingerprint="another"))
    with pytest.raises(LibraryVersionError, match="new library"):
        changed.search("zebra")


def test_another_chunker_is_an_error_that_says_so(opened: Opener) -> None:
    opened().add_text("a", "zebra")
    with pytest.raises(LibraryVersionError, match="tokens=21"):
        opened(chunker="fixed(tokens=21)")
    assert opened(chunker=None).search("zebra")


def test_a_full_disk_is_an_error_and_leaves_what_was_there(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened()
    library.add_text("a", "zebra")

    def full(*_: object) -> None:
        raise RuntimeError("LanceError(IO): No space left on device (os error 28)")

    monkeypatch.setattr("longreach.library.table.replace", full)
    with pytest.raises(DiskFullError, match="no room"):
        library.add_text("b", "ape")
    monkeypatch.undo()
    assert [info.id for info in library.documents()] == ["a"]
    library.add_text("b", "ape")
    assert len(library.documents()) == 2


def test_every_value_of_the_header_is_text(opened: Opener, tmp_path: Path) -> None:
    opened().add_text("a", "zebra")
    header = Catalog(tmp_path / "notes.library").header()
    assert int(header.pop("tidy")) > 0
    assert header == {
        "chunker": "fixed(tokens=20, overlap=0)",
        "dim": "64",
        "encoder": "hashing",
        "fingerprint": "hashing/64",
    }
    assert json.dumps(header)


def test_an_encoder_that_fails_is_not_taken_for_a_damaged_library(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = opened()
    library.add_text("a", "zebra")

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(HashingEncoder, "embed_queries", fail)
    for use in (lambda: library.search("zebra"), lambda: library.add_text("b", "ape")):
        with pytest.raises(RuntimeError, match="out of memory"):
            use()
    assert [info.id for info in library.documents()] == ["a"]


def test_a_library_may_be_searched_from_within_an_event_loop(opened: Opener) -> None:
    library = opened()
    library.add_text("a", "zebra")

    async def ask() -> list[str]:
        return [hit.document.id for hit in library.search("zebra")]

    assert asyncio.run(ask()) == ["a"]


def test_threads_may_search_at_once(opened: Opener) -> None:
    library = opened()
    library.add_documents(Document(f"d{i}", f"fish w{i}") for i in range(8))
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda i: library.search(f"w{i}", 1, retriever="bm25")[0].document.id, list(range(8)) * 5)
        )
    assert found == [f"d{i}" for i in range(8)] * 5
