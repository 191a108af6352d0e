"""Seconds and bytes as people write them."""

from __future__ import annotations

import re

from longreach.errors import InputError

_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "min": 60.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def seconds(text: str) -> float:
    """`0.5s`, `500ms`, `2min` or a number of seconds. Raises InputError."""
    return _read(text, _SECONDS, "a time", "0.5s or 500ms")


def size(text: str) -> int:
    """`2GB`, `512MiB` or a number of bytes. Raises InputError."""
    return round(_read(text, {unit: float(many) for unit, many in _BYTES.items()}, "a size", "2GB or 512MiB"))


def _read(text: str, units: dict[str, float], what: str, example: str) -> float:
    found = _WRITTEN.fullmatch(text)
    unit = units.get(found[2].lower()) if found else None
    if found is None or unit is None or not float(found[1]) > 0:
        raise InputError(f"{text!r} is not {what}: write {example}")
    return float(found[1]) * unit
