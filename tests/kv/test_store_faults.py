"""Whatever happens to the disk, to the files and to processes: what the store gives is right, or it gives nothing."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kv.chunks import entry_of, key_of, open_store, same
from longreach.errors import InputError
from longreach.kv.store import Entry, Key, KVStore, files
from longreach.kv.store.format import USAGE_AT

SCRIPT = Path(__file__).with_name("chunks.py")


def one_file(folder: Path) -> Path:
    (file,) = folder.rglob("*.kv1")
    return file


def stored(folder: Path, number: int = 6) -> Path:
    """The file of one chunk, put by a store that is closed again."""
    store = open_store(folder)
    store.put(key_of(store, number), entry_of(number))
    store.close()
    return one_file(folder)


def wanted(folder: Path, number: int = 6) -> tuple[KVStore, Entry | None]:
    store = open_store(folder)
    return store, store.get(key_of(store, number))


@pytest.mark.parametrize("length", [0, 1, 7, 12, 40, 80, 100, -1, -100])
def test_a_truncated_file_is_removed_and_computed_again(tmp_path: Path, length: int) -> None:
    file = stored(tmp_path)
    data = file.read_bytes()
    file.write_bytes(data[:length])
    store, found = wanted(tmp_path)
    assert found is None
    told = store.stats().disk
    assert (told.hits, told.misses, told.damaged, told.entries) == (0, 1, 1, 0)
    assert not file.exists()
    store.put(key_of(store, 6), entry_of(6))
    assert file.read_bytes()[USAGE_AT + 12 :] == data[USAGE_AT + 12 :]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("sound"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_nothing_wrong(sound: Path, at: int, bit: int) -> None:
    data = bytearray(sound.read_bytes())
    at %= len(data)
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    sound.write_bytes(changed)
    try:
        store, found = wanted(sound.parent.parent)
        store.stats()
        if USAGE_AT <= at < USAGE_AT + 12 or at in (10, 11):
            assert found is not None  # how often it was wanted; nothing
            assert same(found, entry_of(6))
        else:
            assert found is None
            told = store.stats()
            assert told.disk.damaged + told.foreign == 1
    finally:
        sound.write_bytes(data)


@pytest.mark.parametrize("damage", [lambda data: data + b"\0", lambda data: bytes(len(data)), lambda data: data[::-1]])
def test_a_file_with_other_contents_is_removed(tmp_path: Path, damage: Any) -> None:
    file = stored(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    store, found = wanted(tmp_path)
    assert (found, store.stats().disk.damaged, file.exists()) == (None, 1, False)


@pytest.mark.parametrize("what", ["kv.chunks.Plain.open", "longreach.kv.codec.opened.Opened.whole"])
def test_what_the_codec_cannot_read_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    file = stored(tmp_path)

    def fails(*_: object) -> None:
        raise ValueError("cannot be read")

    monkeypatch.setattr(what, fails)
    store, found = wanted(tmp_path)
    told = store.stats().disk
    assert (found, told.hits, told.misses, told.damaged, file.exists()) == (None, 0, 1, 1, False)


def test_entries_of_another_version_are_passed_over_and_counted(tmp_path: Path) -> None:
    file = stored(tmp_path)
    future = file.with_suffix(".kv2")
    file.rename(future)
    store, found = wanted(tmp_path)
    told = store.stats()
    assert (found, told.disk.entries, told.foreign, told.disk.damaged) == (None, 0, 1, 0)
    assert told.foreign_bytes == future.stat().st_size
    store.put(key_of(store, 6), entry_of(6))
    assert future.exists()


def test_a_file_of_another_model_in_our_place_is_passed_over_and_replaced(tmp_path: Path) -> None:
    other = open_store(tmp_path / "other", fingerprint="another")
    other.put(key_of(other, 6), entry_of(13))
    file = stored(tmp_path / "ours")
    shutil.copy(one_file(tmp_path / "other"), file)
    store, found = wanted(tmp_path / "ours")
    told = store.stats()
    assert (found, told.disk.entries, told.foreign, told.disk.damaged) == (None, 0, 1, 0)
    assert file.exists()
    store.put(key_of(store, 6), entry_of(6))
    store, found = wanted(tmp_path / "ours")
    assert found is not None
    assert same(found, entry_of(6))


def test_what_other_versions_left_makes_room_first(tmp_path: Path) -> None:
    store = open_store(tmp_path, host=0, disk=3000)
    store.put(key_of(store, 6), entry_of(6))
    old = one_file(tmp_path).with_name("0" * 32 + ".00000000.kv0")
    old.write_bytes(bytes(1500))
    own = tmp_path / "notes.txt"
    own.write_text("not ours")
    store = open_store(tmp_path, host=0, disk=3000)
    store.put(key_of(store, 13), entry_of(13))
    assert not old.exists()
    assert store.get(key_of(store, 6)) is not None
    assert own.exists()


class FullDisk:
    """A stream onto a disk with room for `room` bytes more."""

    def __init__(self, stream: Any, room: int) -> None:
        self.stream, self.room = stream, room

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = int(self.stream.write(data[: self.room]))
        self.room -= written
        return written


def test_a_full_disk_is_a_miss_with_one_warning_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path, host=0)
    store.put(key_of(store, 1), entry_of(1))
    real = Path.open
    full = True

    def opened(path: Path, mode: str = "r", *options: Any, **named: Any) -> Any:
        stream = real(path, mode, *options, **named)
        return FullDisk(stream, 150) if full and "x" in mode else stream

    monkeypatch.setattr(Path, "open", opened)
    for number in (2, 3, 4):
        assert not store.put(key_of(store, number), entry_of(number))
        assert store.get(key_of(store, number)) is None
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [one_file(tmp_path).name]
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    told = store.stats()
    assert (told.unwritten, told.disk.entries) == (3, 1)
    assert store.get(key_of(store, 1)) is not None
    full = False
    assert store.put(key_of(store, 2), entry_of(2))
    assert store.get(key_of(store, 2)) is not None


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if not made or made.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_fills_up_keeps_what_it_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        store = open_store(disk, host=0, disk=1 << 30)
        told = [store.put(key_of(store, number, 2000), entry_of(number, 2000)) for number in range(10)]
        assert 0 < sum(told) < 10
        for number, kept in enumerate(told):
            found = store.get(key_of(store, number, 2000))
            assert (found is not None) == kept
            assert found is None or same(found, entry_of(number, 2000))
        assert len(caplog.records) == 1
        store.close()


def test_a_folder_that_is_deleted_meanwhile_is_a_miss_and_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = open_store(folder, host=0)
    for number in (6, 7):
        store.put(key_of(store, number), entry_of(number))
    shutil.rmtree(folder)
    assert store.get(key_of(store, 6)) is None
    store.prefetch([key_of(store, 7)])
    store.flush()
    assert store.stats().disk.entries == 0
    assert store.put(key_of(store, 6), entry_of(6))
    assert store.get(key_of(store, 6)) is not None
    shutil.rmtree(folder)
    store.close()


def test_a_folder_that_cannot_be_made_is_a_store_without_a_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(tmp_path / "file" / "store")
    assert store.put(key_of(store, 6), entry_of(6))
    assert store.where(key_of(store, 6)) == "host"
    assert store.get(key_of(store, 6)) is not None
    assert len(caplog.records) == 1
    store.close()
    with pytest.raises(InputError, match="is a file"):
        open_store(tmp_path / "file")


def test_a_disk_that_cannot_be_read_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path)

    def read(_: Path) -> memoryview:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "read", read)
    store, found = wanted(tmp_path)
    told = store.stats().disk
    assert (found, told.misses, told.damaged) == (None, 1, 1)


def test_what_a_killed_process_left_unfinished_is_cleared_away(tmp_path: Path) -> None:
    file = stored(tmp_path)
    left = file.with_name(f".{file.name}.0123456789abcdef.tmp")
    for age, stays in ((10, True), (10_000, False)):
        left.write_bytes(b"half")
        os.utime(left, (time.time() - age, time.time() - age))
        store, _ = wanted(tmp_path)
        assert store.stats().disk.entries == 1
        assert left.exists() == stays


def program(folder: Path, limit: int, first: int, last: int, seed: int, size: int, rounds: int) -> Any:
    given = [str(value) for value in (folder, limit, first, last, seed, size, rounds)]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def check(store: KVStore, numbers: range, size: int) -> int:
    """How many chunks are there; all of them right."""
    found = [(number, store.get(key_of(store, number, size))) for number in numbers]
    assert all(entry is None or same(entry, entry_of(number, size)) for number, entry in found)
    assert store.stats().disk.damaged == 0
    return sum(entry is not None for _, entry in found)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2))
def test_killed_in_the_middle_of_a_put_every_entry_is_whole_or_not_there(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    size, kept = 60_000, 0
    for attempt in range(3):
        process = program(tmp_path, 1 << 30, 0, 200, seed * 10 + attempt, size, 10**6)
        assert process.stdout.readline().startswith("put")
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        store = open_store(tmp_path, host=0, disk=1 << 30)
        now = check(store, range(200), size)
        assert now >= kept
        kept = now
        store.close()
    assert kept > 0


@pytest.mark.thorough
def test_two_engines_on_one_folder_lose_nothing_but_what_makes_room(tmp_path: Path) -> None:
    limit, size = 60_000, 20
    processes = [program(tmp_path, limit, 0, 40, seed, size, 1500) for seed in (1, 2)]
    for process in processes:
        out, err = process.communicate(timeout=300)
        last = out.splitlines()[-1].split()
        assert last[0] == "done", err
        assert int(last[1]) > 0  # found something
        assert int(last[2]) == 0  # found nothing damaged
    store = open_store(tmp_path, host=0, disk=limit)
    assert check(store, range(40), size) > 0
    assert store.stats().disk.bytes <= limit + 64 * 1500  # what one wrote between two looks of the other


def test_two_engines_find_what_the_other_wrote_and_miss_what_it_removed(tmp_path: Path) -> None:
    first, second = open_store(tmp_path, host=0), open_store(tmp_path, host=0)
    key: Key = key_of(first, 6)
    second.put(key_of(second, 1), entry_of(1))
    first.put(key, entry_of(6))
    assert second.get(key) is not None
    second.clear()
    assert first.get(key) is None
    assert first.stats().disk.damaged == 0
