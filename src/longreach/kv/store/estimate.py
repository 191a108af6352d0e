"""What a store takes of a disk, and what reading ahead would add: said without a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from longreach.kv.store import files
from longreach.kv.store.disk import model_name
from longreach.kv.store.format import HEADER

if TYPE_CHECKING:
    import torch

    from longreach.kv.codec import KVShape

ID_BYTES = OUTWARD_BYTES = 4
"""Of a token's id, and of how much it looked outward, in a file (`longreach.kv.store.format`)."""

_HEADS = 290
"""Bytes of fingerprint, codec and prefix class in a file, and of what a codec says of what it wrote: about."""


class Sized(Protocol):
    """What a codec says of its size (`longreach.kv.codec.Codec`)."""

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float: ...


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What the entries of one model take; `model` is its name, or that of its folder where it has none."""

    model: str
    entries: int
    bytes: int


def usage(folder: Path) -> list[ModelUsage]:
    """What each model takes in the store in `folder`, the largest first."""
    totals: dict[str, tuple[int, int]] = {}
    for found in files.entries(folder):
        home = found.name.partition("/")[0]
        entries, size = totals.get(home, (0, 0))
        totals[home] = entries + 1, size + found.bytes
    told = [ModelUsage(model_name(folder / home) or home, *total) for home, total in totals.items()]
    return sorted(told, key=lambda model: -model.bytes)


def disk_bytes(
    entries: Mapping[int, int], codec: Sized, shape: KVShape, dtype: torch.dtype, *, more_per_token: int = 0
) -> int:
    """About what entries take on disk that `codec` writes for a model of `shape` whose numbers are of `dtype`.
    `entries[n]` is how many have n tokens; `more_per_token` are bytes that are kept beside a token's keys, values and
    id."""
    beside = sum(count * (tokens * (ID_BYTES + more_per_token) + HEADER + _HEADS) for tokens, count in entries.items())
    return round(encoded_bytes(entries, codec, shape, dtype)) + beside


def encoded_bytes(entries: Mapping[int, int], codec: Sized, shape: KVShape, dtype: torch.dtype) -> float:
    """About what the keys and values of these entries take alone."""
    return sum(count * tokens * codec.bytes_per_token(shape, dtype, tokens) for tokens, count in entries.items())
