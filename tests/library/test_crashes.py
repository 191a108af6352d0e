"""What a library promises when a process is killed, and between processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from hashed import open_hashed
from longreach.errors import DiskFullError, LibraryBusyError
from longreach.library import Library, Progress
from longreach.library.lock import FILE

sys.path.insert(0, str(Path(__file__).parent))
from indexing import document

Opener = Callable[..., Library]


def indexing(path: Path, first: int, last: int, batch: int = 8) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("indexing.py")
    command = [sys.executable, str(script), str(path), str(first), str(last), str(batch)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_whole(library: Library) -> set[str]:
    """Every document there is is there exactly, with all its chunks and no other; the ids of all."""
    infos = library.documents()
    for info in infos:
        expected = document(int(info.id[1:]))
        assert library.get(info.id).text == expected.text
        hits = library.search("common", k=500, retriever="bm25") if len(infos) < 80 else []
        spans = [hit.chunk for hit in hits if hit.document.id == info.id]
        assert not hits or len(spans) == info.chunks
    with library.view() as view:
        assert (0 if view.table is None else view.table.count_rows()) == sum(info.chunks for info in infos)
    return {info.id for info in infos}


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_the_library_is_whole_and_the_next_run_completes_it(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path, documents, sizes = tmp_path / "killed.library", 300, [0]
    for _ in range(6):
        process = indexing(path, 0, documents, batch=4)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with open_hashed(path) as library:
            sizes.append(len(check_whole(library)))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0
    process = indexing(path, 0, documents)
    out, err = process.communicate(timeout=120)
    assert "done" in out, err
    with open_hashed(path) as library:
        assert check_whole(library) == {f"d{number}" for number in range(documents)}


@pytest.mark.thorough
def test_two_processes_that_index_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shared.library"
    processes = [indexing(path, 0, 40), indexing(path, 30, 70)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert "done" in out, err
    with open_hashed(path) as library:
        assert check_whole(library) == {f"d{number}" for number in range(70)}


@pytest.mark.thorough
def test_readers_see_whole_documents_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "read.library"
    open_hashed(path).close()
    process = indexing(path, 0, 60, batch=4)
    seen: list[int] = []
    with open_hashed(path) as library:
        while process.poll() is None:
            with library.view() as view:
                infos = view.catalog.infos()
                rows = 0 if view.table is None else view.table.count_rows()
            assert rows == sum(info.chunks for info in infos.values())
            seen.append(len(infos))
            time.sleep(0.01)
        process.communicate()
        assert check_whole(library) == {f"d{number}" for number in range(60)}
    assert seen == sorted(seen)


def test_a_writer_that_waits_says_so_and_gives_up_naming_the_library(opened: Opener) -> None:
    library = opened(wait=0.2)
    told: list[Progress] = []
    with FileLock(library.path / FILE), pytest.raises(LibraryBusyError, match=r"notes\.library"):
        library.add_documents([document(1)], progress=told.append)
    assert [one.message for one in told if "waiting" in one.message]
    assert library.add_documents([document(1)]).added == 1


def test_a_reader_does_not_wait_for_a_writer(opened: Opener) -> None:
    library = opened(wait=0.0)
    library.add_documents([document(1)])
    with FileLock(library.path / FILE):
        assert opened(wait=0.0).search("common")


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if not made or made.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_fills_up_is_an_error_and_the_library_stays_whole(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk, open_hashed(disk / "full.library") as library:
        library.add_documents([document(0)])
        with pytest.raises(DiskFullError, match="no room"):
            library.add_documents(map(document, range(1, 5000)))
        kept = check_whole(library)
        assert "d0" in kept
