"""Whatever happens to the store of an engine, to its files and to its process: answers are those without any store."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from keeping import answer, choices, forgetful, keeping, prompt, store_of
from longreach.engine import Engine
from longreach.engine.paged import PagedEngine
from longreach.kv.store import files
from longreach.kv.store.disk import DiskTier

ROUNDS = choices(0, 6, of=8)


pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture(scope="module")
def expected(storyteller: PagedEngine, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """The answers of `ROUNDS` without any store."""
    engine = forgetful(storyteller.loaded, tmp_path_factory.mktemp("none"))
    found = [answer(engine, chosen) for chosen in ROUNDS]
    assert len({tuple(tokens) for tokens in found}) > 2
    return found


def warnings(caplog: pytest.LogCaptureFixture, folder: Path) -> int:
    """How many there were of the store in `folder`; one of a test before may end meanwhile."""
    return sum(str(folder) in record.getMessage() for record in caplog.records)


def asked(engine: PagedEngine) -> list[list[int]]:
    """The answers of `ROUNDS`; what was read has left the pages before each, so that it must come from below."""
    found = []
    for chosen in ROUNDS:
        engine.passages.evict(len(engine.pool))  # type: ignore[union-attr]
        found.append(answer(engine, chosen))
        store_of(engine).flush()
    engine.pool.check()
    return found


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.kv1"))


class Disk:
    """A disk with room for `room` bytes more."""

    def __init__(self) -> None:
        self.room: float = float("inf")

    def opened(self, stream: Any) -> Any:
        return _Stream(self, stream)


class _Stream:
    def __init__(self, disk: Disk, stream: Any) -> None:
        self.disk, self.stream = disk, stream

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def write(self, data: memoryview) -> int:
        if not self.disk.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = int(self.stream.write(data[: int(min(self.disk.room, len(data)))]))
        self.disk.room -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """What new files are written to from now on."""
    made, real = Disk(), Path.open

    def opened(path: Path, mode: str = "r", *options: Any, **named: Any) -> Any:
        stream = real(path, mode, *options, **named)
        return made.opened(stream) if "x" in mode else stream

    monkeypatch.setattr(Path, "open", opened)
    return made


@pytest.mark.parametrize("room", [0, 100, 75_000])
def test_a_disk_that_is_full_or_fills_up_half_way_changes_no_answer(
    storyteller: PagedEngine,
    expected: list[list[int]],
    tmp_path: Path,
    disk: Disk,
    room: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk.room = room
    engine = keeping(storyteller.loaded, tmp_path, host=0)
    assert asked(engine) == expected
    assert asked(engine) == expected
    assert (len(entries(tmp_path)) > 0) == (room > 1000)
    assert not list(tmp_path.rglob("*.tmp"))
    assert store_of(engine).stats().unwritten > 0
    assert warnings(caplog, tmp_path) == 1
    disk.room = float("inf")
    asked(engine)
    again = keeping(storyteller.loaded, tmp_path, host=0)
    done = again.generate([prompt(again, ROUNDS[0])], max_tokens=10)[0]
    assert list(done.token_ids) == expected[0]
    assert done.usage.loaded_tokens == done.usage.reused_tokens > 0
    assert warnings(caplog, tmp_path) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_small_disk_changes_no_answer(
    storyteller: PagedEngine, expected: list[list[int]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount = shutil.which("mount")
    small = ["-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)]
    if not mount or subprocess.run([mount, *small], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        engine = keeping(storyteller.loaded, tmp_path, host=0)
        assert asked(engine) == expected
        assert asked(engine) == expected
        assert entries(tmp_path)
        assert store_of(engine).stats().unwritten > 0
        assert warnings(caplog, tmp_path) == 1
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_store_that_is_deleted_under_a_running_engine_changes_no_answer(
    storyteller: PagedEngine, expected: list[list[int]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "store"
    engine = keeping(storyteller.loaded, folder, host=0)
    for chosen, wanted in zip(ROUNDS, expected, strict=True):
        assert answer(engine, chosen) == wanted
        store_of(engine).flush()
        assert entries(folder)
        shutil.rmtree(folder)
        engine.passages.evict(len(engine.pool))  # type: ignore[union-attr]
        store_of(engine).flush()
    assert asked(engine) == expected
    assert entries(folder)
    assert not warnings(caplog, tmp_path)


@pytest.mark.parametrize("at", ["looking", "reading"])
def test_a_store_that_is_deleted_while_passages_are_loaded_changes_no_answer(
    storyteller: PagedEngine, expected: list[list[int]], tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    engine = keeping(storyteller.loaded, folder, host=0)
    assert asked(engine) == expected
    engine.passages.evict(len(engine.pool))  # type: ignore[union-attr]
    look, read = DiskTier.__contains__, DiskTier.read

    def looks(*given: Any) -> bool:
        found = look(*given)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def reads(*given: Any) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        return read(*given)

    with monkeypatch.context() as during:
        during.setattr(DiskTier, *(("__contains__", looks) if at == "looking" else ("read", reads)))
        done = engine.generate([prompt(engine, ROUNDS[0])], max_tokens=10)[0]
    assert list(done.token_ids) == expected[0]
    assert done.usage.loaded_tokens == 0
    assert asked(engine) == expected


def _broken(kind: int) -> Any:
    def fails(*_: object, **__: object) -> Any:
        raise OSError(kind, os.strerror(kind))

    return fails


@pytest.mark.parametrize("kind", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_disk_that_answers_with_errors_changes_no_answer(
    storyteller: PagedEngine,
    expected: list[list[int]],
    tmp_path: Path,
    kind: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = keeping(storyteller.loaded, tmp_path, host=0)
    assert asked(engine) == expected
    with monkeypatch.context() as during:
        for name in ("open", "stat", "mkdir", "unlink", "read_bytes", "replace"):
            during.setattr(Path, name, _broken(kind))
        during.setattr(os, "scandir", _broken(kind))
        real = os.stat
        during.setattr(
            os, "stat", lambda at, *rest, **named: (_broken(kind) if _in(at, tmp_path) else real)(at, *rest, **named)
        )
        assert asked(engine) == expected
        engine.passages.evict(len(engine.pool))  # type: ignore[union-attr]
        assert engine.kept(prompt(engine, ROUNDS[0])) == [False] * 3
        store_of(engine).stats()
    assert warnings(caplog, tmp_path) <= 1
    assert asked(engine) == expected


def _in(at: object, folder: Path) -> bool:
    return isinstance(at, str | Path) and Path(at).is_relative_to(folder)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_a_load_that_fails_is_a_passage_that_is_read(
    storyteller: PagedEngine,
    expected: list[list[int]],
    tmp_path: Path,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = keeping(storyteller.loaded, tmp_path)
    assert asked(engine) == expected

    def fails(*_: object) -> Any:
        raise error("for this time")

    with monkeypatch.context() as during:
        during.setattr("longreach.kv.store.entry.Named.open", fails)
        assert asked(engine) == expected
    assert asked(engine) == expected


def _version(at: int) -> Any:
    """Counts the version up that stands at byte `at` of a file, and makes its checksum right."""

    def changed(data: bytes) -> bytes:
        import xxhash

        out = bytearray(data)
        out[at] += 1
        out[24:40] = xxhash.xxh3_128_digest(bytes(out[40:]))
        return bytes(out)

    return changed


def _payload(data: bytes) -> int:
    """Where the codec's part of a file begins: with its magic and its version."""
    return data.index(b"LRKV", 40)


@pytest.mark.parametrize("what", ["file", "name", "frame"])
def test_a_store_from_another_version_changes_no_answer(
    storyteller: PagedEngine,
    expected: list[list[int]],
    tmp_path: Path,
    what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = keeping(storyteller.loaded, tmp_path)
    assert asked(before) == expected
    store_of(before).close()
    for file in entries(tmp_path):
        data = file.read_bytes()
        if what == "name":
            file.rename(file.with_suffix(".kv2"))
        else:
            file.write_bytes(_version(8 if what == "file" else _payload(data) + 4)(data))
    engine = keeping(storyteller.loaded, tmp_path)
    done = engine.generate([prompt(engine, ROUNDS[0])], max_tokens=10)[0]
    assert list(done.token_ids) == expected[0]
    assert (done.usage.loaded_tokens, done.usage.reused_tokens) == (0, 0)
    assert asked(engine) == expected
    store_of(engine).close()
    again = keeping(storyteller.loaded, tmp_path)
    done = again.generate([prompt(again, ROUNDS[0])], max_tokens=10)[0]
    assert list(done.token_ids) == expected[0]
    assert done.usage.loaded_tokens > 0
    assert not warnings(caplog, tmp_path)


def _other(model: Path) -> None:
    """Replace the weights in the folder of a model by others, as a download does: the new file takes the name."""
    (file,) = model.glob("*.safetensors")
    weights = load_file(file)
    generator = torch.Generator().manual_seed(0)
    changed = {name: w + 0.05 * torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    save_file(changed, file.with_suffix(".new"), metadata={"format": "pt"})
    file.with_suffix(".new").replace(file)


def test_of_a_model_file_that_was_replaced_under_its_name_nothing_is_used(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(stories, tmp_path / "model"))

    def loaded(store: str) -> PagedEngine:
        monkeypatch.setenv("LONGREACH_STORE", str(tmp_path / store))
        engine = Engine.load(str(model), device="cpu", dtype="float32", reuse="naive", cache=tmp_path / "cache")
        assert isinstance(engine, PagedEngine)
        return engine

    old = loaded("store")
    first = answer(old, ROUNDS[0])
    store_of(old).close()
    _other(model)
    new = loaded("store")
    done = new.generate([prompt(new, ROUNDS[0])], max_tokens=10)[0]
    assert (done.usage.reused_tokens, done.usage.loaded_tokens) == (0, 0)
    assert list(done.token_ids) == answer(loaded("none"), ROUNDS[0]) != first
    store_of(new).close()
    assert len({file.parent for file in entries(tmp_path / "store")}) == 2


@pytest.mark.parametrize("lost", ["tail", "all", "name"])
def test_what_a_power_cut_leaves_of_files_changes_no_answer(
    storyteller: PagedEngine, expected: list[list[int]], tmp_path: Path, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = keeping(storyteller.loaded, tmp_path)
    assert asked(before) == expected
    store_of(before).close()
    some = entries(tmp_path)[::2]
    for file in some:
        data = file.read_bytes()
        if lost == "name":
            file.unlink()
        else:
            file.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2) if lost == "tail" else b"")
    engine = keeping(storyteller.loaded, tmp_path)
    assert asked(engine) == expected
    assert store_of(engine).stats().disk.damaged == (0 if lost == "name" else len(some))
    assert not warnings(caplog, tmp_path)


def test_what_is_on_its_way_when_files_are_written_is_whole_or_not_there(
    storyteller: PagedEngine, expected: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file stops at another byte, as where the power goes while it is written."""
    real, chance = files.write, random.Random(0)

    def cut(path: Path, *parts: bytes) -> None:
        whole = b"".join(parts)
        if chance.random() < 0.5:
            real(path, *parts)
        else:
            real(path.with_name(f".{path.name}.{'0' * 16}.tmp"), whole[: chance.randrange(len(whole))])

    with monkeypatch.context() as during:
        during.setattr(files, "write", cut)
        assert asked(keeping(storyteller.loaded, tmp_path, host=0)) == expected
    engine = keeping(storyteller.loaded, tmp_path, host=0)
    assert asked(engine) == expected
    assert store_of(engine).stats().disk.damaged == 0


def test_an_error_while_passages_are_read_leaves_no_page_behind(
    storyteller: PagedEngine, expected: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = keeping(storyteller.loaded, tmp_path)
    assert answer(engine, ROUNDS[0]) == expected[0]

    def fails(*_: object) -> None:
        raise RuntimeError("for this time")

    with monkeypatch.context() as during:
        during.setattr("longreach.engine.runner.Runner.read", fails)
        with pytest.raises(RuntimeError, match="for this time"):
            answer(engine, [*ROUNDS[0], 20])
    assert answer(engine, ROUNDS[0]) == expected[0]
    engine.forget()
    assert engine.pool.used == 0
    engine.pool.check()
