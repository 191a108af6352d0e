"""The answering model that comes with Longreach: SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737).

The wheel holds it as a GGUF file. On first use it is converted, once, into a folder that transformers can read; the
GGUF file stays beside it for engines that want it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from longreach import fetch
from longreach.errors import DiskFullError, ModelError

NAME = "embedded"
_CONVERTED = "transformers-1"  # a new number makes every cache convert again
_WHOLE = "generation_config.json"


def folder(cache: Path) -> Path:
    """Where the converted model lies, or would."""
    return fetch.place(fetch.READER, cache) / _CONVERTED


def ensure(*, cache: Path, offline: bool = False, report: fetch.Report | None = None) -> Path:
    """The folder of the embedded answering model in transformers' format, fetched and converted where it must be.

    Raises NetworkError, ModelError, DiskFullError.
    """
    done = folder(cache)
    if (done / _WHOLE).is_file():
        return done
    home = fetch.ensure(fetch.READER.name, cache=cache, offline=offline, report=report)
    if report:
        report("converting the embedded model, once")
    convert_into(home / fetch.READER.needs[0], done)
    return done


def convert_into(file: Path, done: Path) -> None:
    """Convert the GGUF `file` into the folder `done`, which appears in one step; one process at a time does it."""
    from filelock import FileLock

    from longreach.model.gguf import GGUF, convert

    fresh = done.with_name(f".{done.name}.partial")
    try:
        done.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(done.with_name(f".{done.name}.lock")):
            if (done / _WHOLE).is_file():
                return
            for left in (fresh, done):
                shutil.rmtree(left, ignore_errors=True)
            fresh.mkdir()
            try:
                convert(GGUF(file), fresh)
                fresh.rename(done)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        if error.errno == 28:
            raise DiskFullError(f"no room left on the disk of {done.parent} to convert {file.name}") from None
        raise ModelError(f"{file.name} cannot be converted into {done}: {error}") from None
