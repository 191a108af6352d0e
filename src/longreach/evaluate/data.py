"""Where evaluation data lies, and reading it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from longreach.config import load_settings
from longreach.errors import InputError


def data_folder() -> Path:
    """The folder of evaluation data: the setting `data`, else `shared/data` beside this project's folder. Raises
    InputError where there is none."""
    given = load_settings().data
    folder = given or Path(__file__).resolve().parents[4] / "shared" / "data"
    if not folder.is_dir():
        raise InputError(f"there is no folder of evaluation data at {folder}: set LONGREACH_DATA to yours")
    return folder


def data_file(name: str) -> Path:
    """The file of the data set `name`. Raises InputError listing those that are there."""
    folder = data_folder()
    file = folder / f"{name}.json.gz"
    if not file.is_file():
        known = sorted(path.name.removesuffix(".json.gz") for path in folder.glob("*.json.gz"))
        raise InputError(f"no data set is called {name!r} in {folder}; there are: {', '.join(known) or 'none'}")
    return file


def read_json(file: Path) -> Any:
    """The value in a `.json` or `.json.gz` file. Raises InputError where it cannot be read."""
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rt", encoding="utf-8") as stream:
                return json.load(stream)
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """The objects in a file of one JSON object a line. Raises InputError naming the line at fault."""
    objects: list[dict[str, Any]] = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                objects.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                raise InputError(f"{file}, line {number}: this is no JSON object") from None
    return objects
