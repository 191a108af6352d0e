"""How kernels are cut for a device, all constants in one place.

Reckoned from the registers and the shared memory that kernels compiled for an H100 take; `bench/gpu_kernels.py`
measures others beside them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodeTuning:
    """`warps` and `stages` of a program; `resident`: how many programs an SM holds at a time."""

    warps: int
    stages: int
    resident: int


@dataclass(frozen=True, slots=True)
class PrefillTuning:
    """A program has `rows` query rows (tokens times heads of a group) and reads `entries` of the cache at a time."""

    rows: int
    entries: int
    warps: int
    stages: int
    resident: int


OVERHEAD = 2
"""What it costs to begin and end a program, in pages."""


def decode_tuning(page: int, line: int, group: int, references: int) -> DecodeTuning:
    """For pages of `page` keys of `line` bytes, `group` query heads to a KV head, `references` = S * N at most."""
    del group, references  # up to 16 rows cost the same, and what is to be cut is cut by `splits`
    if page * line <= 4096:
        return DecodeTuning(warps=1, stages=4, resident=8)
    if page * line <= 8192:
        return DecodeTuning(warps=2, stages=3, resident=6)
    if page * line <= 16384:
        return DecodeTuning(warps=4, stages=3, resident=3)
    # More than that leaves room in shared memory for one page of keys and values, and for fewer programs.
    return DecodeTuning(warps=4, stages=2, resident=2 if page * line <= 32768 else 1)


def prefill_tuning(page: int, line: int, rows: int) -> PrefillTuning:
    """For pages of `page` keys of `line` bytes, and `rows` query rows (tokens times group) of a sequence on average."""
    if rows <= 16:
        return PrefillTuning(16, max(page, 32), warps=4, stages=3 if page * line <= 16384 else 2, resident=3)
    if line > 256:
        return PrefillTuning(64, 64, warps=8, stages=2, resident=1)
    if rows <= 64:
        return PrefillTuning(64, 64, warps=4, stages=3, resident=1)
    return PrefillTuning(128, 128, warps=8, stages=3, resident=1)


def splits(streams: int, references: int, slots: int, most: int = 128) -> int:
    """In how many parts each of `streams` streams of up to `references` pages is read by a device that runs `slots`
    programs at a time: the fewest that take the fewest rounds."""
    best, least = 1, float("inf")
    for parts in range(1, max(1, min(most, references, -(-4 * slots // max(streams, 1)))) + 1):
        rounds = -(-streams * parts // slots)
        cost = rounds * (-(-references // parts) + OVERHEAD)
        if cost < least:
            best, least = parts, cost
    return best
