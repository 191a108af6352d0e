"""What a store tells about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What happened in a tier since it was opened: entries asked for and found or not, found damaged, evicted."""

    hits: int = 0
    misses: int = 0
    damaged: int = 0
    evicted: int = 0


@dataclass(frozen=True, slots=True)
class TierStats:
    """What a tier holds of one model in one codec, how many bytes it may hold, and what happened since it was
    opened."""

    limit: int
    entries: int
    bytes: int
    hits: int
    misses: int
    damaged: int
    evicted: int


@dataclass(frozen=True, slots=True)
class StoreStats:
    """The three tiers. `foreign` counts entries in the folder that are another model's, codec's or version's, which
    take `foreign_bytes`; `unwritten` those that the disk did not take; `dropped` those that came while too many were
    waiting."""

    device: TierStats
    host: TierStats
    disk: TierStats
    foreign: int
    foreign_bytes: int
    unwritten: int
    dropped: int
