"""Adding files and folders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from longreach.errors import InputError
from longreach.library import Library

pytest.importorskip("longreach.corpus.files")
pytest.importorskip("longreach.corpus.load")

Opener = Callable[..., Library]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("about ants")
    (folder / "deep" / "b.md").write_text("# Bees\n\nabout bees")
    (folder / "image.bin").write_bytes(b"\x00\x01\x02" * 50)
    return folder


def ids(library: Library) -> set[str]:
    return {Path(info.id).name for info in library.documents()}


def test_a_folder_is_added_with_what_can_be_read(opened: Opener, folder: Path) -> None:
    library = opened()
    report = library.add(folder, metadata={"shelf": 3})
    assert (report.added, len(report.skipped)) == (2, 1)
    assert "image.bin" in report.skipped[0][0]
    assert ids(library) == {"a.txt", "b.md"}
    assert all(info.metadata["shelf"] == 3 and info.metadata["name"] for info in library.documents())


def test_unchanged_files_are_not_opened(opened: Opener, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened()
    library.add(folder)
    monkeypatch.setattr("longreach.corpus.load.load", lambda path: pytest.fail(f"{path} was opened"))
    assert library.add([folder]).unchanged == 2


def test_a_touched_file_that_says_the_same_is_unchanged(opened: Opener, folder: Path) -> None:
    library = opened()
    library.add(folder)
    os.utime(folder / "a.txt", ns=(1, 1))
    report = library.add(folder)
    assert (report.updated, report.unchanged) == (0, 2)
    assert library.add(folder).unchanged == 2


def test_a_changed_file_is_updated(opened: Opener, folder: Path) -> None:
    library = opened()
    library.add(folder)
    (folder / "a.txt").write_text("about apes now")
    assert library.add(folder).updated == 1
    assert library.search("apes", retriever="bm25")
    assert not library.search("ants", retriever="bm25")


def test_a_file_gone_from_a_folder_is_removed(opened: Opener, folder: Path, tmp_path: Path) -> None:
    library = opened()
    other = tmp_path / "other.txt"
    other.write_text("elsewhere")
    library.add([folder, other])
    library.add_text("typed", "not a file")
    (folder / "deep" / "b.md").unlink()
    other.unlink()
    assert library.add(folder).removed == 1
    assert ids(library) == {"a.txt", "other.txt", "typed"}


def test_a_file_that_can_no_longer_be_read_stays_as_it_was(opened: Opener, folder: Path) -> None:
    library = opened()
    library.add(folder)
    (folder / "a.txt").write_bytes(b"\x00\x01\x02" * 50)
    report = library.add(folder)
    assert report.removed == 0
    assert any("a.txt" in path for path, _ in report.skipped)
    assert library.search("ants", retriever="bm25")


def test_other_metadata_for_the_same_files_is_taken_over(opened: Opener, folder: Path) -> None:
    library = opened()
    library.add(folder, metadata={"shelf": 3})
    assert library.add(folder, metadata={"shelf": 4}).updated == 2
    assert library.add(folder).unchanged == 2
    assert len(library.documents({"shelf": 4})) == 2


def test_a_missing_path_is_an_error_and_nothing_is_removed(opened: Opener, folder: Path) -> None:
    library = opened()
    library.add(folder)
    with pytest.raises(InputError, match="nowhere"):
        library.add([folder, folder / "nowhere"])
    assert len(library.documents()) == 2


def test_finding_that_nothing_changed_loads_neither_store_nor_network(opened: Opener, folder: Path) -> None:
    opened().add(folder)
    code = (
        "import sys; from longreach.library import Library; "
        f"print(Library.open({str(folder.parent / 'notes.library')!r}).add({str(folder)!r}).unchanged); "
        "print(sorted({'torch', 'transformers', 'lancedb', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["2", "[]"], done.stderr
