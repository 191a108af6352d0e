"""Filters: from `where` and `under` to SQL over the catalog, every value a bound parameter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from longreach.errors import InputError
from longreach.library.identity import encode
from longreach.types import MetadataValue

Where: TypeAlias = Mapping[str, MetadataValue | Sequence[MetadataValue] | Mapping[str, MetadataValue]]
"""`{key: value}`, `{key: [value, ...]}` for any of them, `{key: {"gte": 3, "lt": 9}}` for a range; all must hold."""

_RANGES = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

Under: TypeAlias = str | Sequence[str] | None
"""Paths: a document is under one if its source is that path or lies in it. None is everywhere."""


def condition(where: Where | None, under: Under) -> tuple[str, list[Any]]:
    """A condition on the table `documents` with its parameters; "1" where nothing is asked. Raises InputError."""
    parts: list[str] = []
    values: list[Any] = []
    if under is not None:
        given = [under] if isinstance(under, str) else list(under)
        prefixes = dict.fromkeys([*given, *map(os.path.abspath, given)])
        choices = [part for prefix in prefixes for part in _prefix(prefix, values)]
        parts.append(f"({' OR '.join(choices) or '0'})")
    for key, wanted in (where or {}).items():
        if not isinstance(key, str):
            raise InputError(f"a filter's key must be text, not {key!r}")
        test, bound = _test(key, wanted)
        parts.append(f"ordinal IN (SELECT ordinal FROM metadata WHERE key = ? AND {test})")
        values += [encode(key), *bound]
    return " AND ".join(parts) or "1", values


def stored(value: MetadataValue) -> bytes | int | float:
    """A metadata value as the catalog keeps it: text as bytes, so that it sorts by code point and never fails."""
    if isinstance(value, str):
        return encode(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value if isinstance(value, float) else int(value)


def _prefix(prefix: str, values: list[Any]) -> list[str]:
    folder = encode(prefix.rstrip("/") + "/")
    values += [encode(prefix), len(folder), folder]
    return ["source = ?", "substr(source, 1, ?) = ?"]


def _test(key: str, wanted: object) -> tuple[str, list[Any]]:
    match wanted:
        case str() | int() | float():
            return "value = ?", [stored(wanted)]
        case Mapping():
            if not wanted or not wanted.keys() <= _RANGES.keys():
                raise InputError(f"the filter on {key!r} is {dict(wanted)!r}; a range takes {', '.join(_RANGES)}")
            tests, values = [], []
            for name, limit in wanted.items():
                if not isinstance(limit, str | int | float):
                    raise InputError(f"the filter on {key!r} compares with {limit!r}; use text or a number")
                kind = "= 'blob'" if isinstance(limit, str) else "<> 'blob'"
                tests.append(f"value {_RANGES[name]} ? AND typeof(value) {kind}")
                values.append(stored(limit))
            return " AND ".join(tests), values
        case Sequence() if all(isinstance(value, str | int | float) for value in wanted):
            return f"value IN ({', '.join('?' * len(wanted))})", [stored(value) for value in wanted]
    raise InputError(f"the filter on {key!r} is {wanted!r}; use a value, a list of values, or a range")
