"""Versions of the chunk table: what is kept, what is dropped."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from longreach.library import Library
from longreach.library.catalog import pin
from longreach.search import search
from longreach.types import Document

Opener = Callable[..., Library]


def test_versions_that_nobody_may_read_any_more_are_dropped(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreach.library.table.KEPT", 0.0)
    library = opened()
    for number in range(5):
        library.add_text(f"d{number}", f"word{number} fish")
    with library.view() as view:
        assert len(view.table.list_versions()) <= 3
        assert view.table.count_rows() == 5


def test_a_version_that_a_reader_may_hold_is_kept(opened: Opener) -> None:
    library, writer = opened(), opened()
    library.add_text("a", "zebra")
    with library.view() as view:
        old = view.table.version
    for number in range(5):
        writer.add_text(f"d{number}", "zebra")
    library._table._open = None
    assert library._table.at(old).count_rows() == 1


def test_a_version_is_kept_for_as_long_as_it_was_the_one_that_counted(opened: Opener) -> None:
    catalog = opened()._catalog
    with catalog.writing() as connection:
        for version, began in [(1, 100.0), (2, 200.0), (2, 300.0), (3, 400.0)]:
            pin(connection, version, began)
    assert catalog.superseded_before(150.0) == 100.0
    assert catalog.superseded_before(399.0) == 200.0
    assert catalog.superseded_before(400.0) == 400.0


def test_indices_cover_every_chunk_after_a_run(opened: Opener) -> None:
    library = opened()
    library.add_text("a", "zebra")
    library.add_text("b", "ape")
    with library.view() as view:
        assert {index.name: index.num_unindexed_rows for index in view.table.list_indices()} == {
            "text_idx": 0,
            "document_idx": 0,
        }


@pytest.mark.thorough
def test_above_the_exact_size_an_index_finds_nearly_the_same(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened()
    documents = [Document(f"d{i}", " ".join(f"w{i * j % 211}" for j in range(1, 9))) for i in range(600)]
    library.add_documents(documents)
    exact = {hit.document.id for hit in library.search("w7 w14 w21", 10, retriever="dense")}
    monkeypatch.setattr("longreach.library.table.EXACT", 100)
    library.add_documents(Document(f"more{i}", f"nothing like it {i}") for i in range(20))
    with library.view() as view:
        assert "vector_idx" in {index.name for index in view.table.list_indices()}
    near = library.search("w7 w14 w21", 10, retriever="dense")
    assert len(exact & {hit.document.id for hit in near}) >= 8


def test_a_run_that_finds_nothing_new_completes_the_indices_of_one_that_was_killed(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = opened()
    monkeypatch.setattr("longreach.library.table.maintain", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        library.add_text("a", "zebra")
    monkeypatch.undo()
    library.add_text("a", "zebra")
    with library.view() as view:
        assert {index.num_unindexed_rows for index in view.table.list_indices()} == {0}


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are not listed here")
def test_files_of_indices_that_are_gone_are_let_go(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreach.library.table.RENEWED", 4)
    library = opened()
    for number in range(16):
        library.add_text(f"d{number % 5}", " ".join(f"w{number * at % 997}" for at in range(300)))
        assert search(library, "w7", 2)
        assert _open_files(library.path) < 20


def _open_files(folder: Path) -> int:
    """How many files under `folder` this process has open, deleted ones too."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            found += str(folder) in os.readlink(link)
    return found
