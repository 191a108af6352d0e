"""What a store takes of a disk, and what reading ahead would add: said without a model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longreach.kv.store import files
from longreach.kv.store.disk import model_name
from longreach.kv.store.format import HEADER

_NAMES = 128
"""Bytes of fingerprint, codec and prefix class in a file, and of what a codec says of itself: about."""


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


def disk_bytes(chunks: int, tokens: int, bytes_per_token: float) -> int:
    """About what `chunks` entries of together `tokens` tokens take on disk; `bytes_per_token` is the codec's."""
    return round(tokens * (bytes_per_token + 4) + chunks * (HEADER + _NAMES))
