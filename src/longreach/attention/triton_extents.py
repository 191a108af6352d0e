"""Between which positions the entries of pages lie, as a stream sees them. Importing this imports Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from longreach.attention.tables import Pages, References, Turns
from longreach.attention.triton_parts import STRIDES, UNSEEN, hidden


@triton.jit(do_not_specialize=[*STRIDES, "width", "streams", "many"])
def _extents(
    stored,
    pages,
    slots,
    alive,
    counts,
    page_s,
    page_h,
    slot_s,
    slot_h,
    alive_s,
    alive_h,
    count_s,
    count_h,
    shifts,
    extents,
    width,
    streams,
    many,
    HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of every page of a stream, positions with the slot's shift: the lowest that may be seen, the highest, and the
    highest of all entries (never to be reached where one is not alive or not written)."""
    stream = tl.program_id(0)
    s = stream // HEADS
    h = stream % HEADS
    count = tl.load(counts + s * count_s + h * count_h)
    ref = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    some = ref < count
    page = tl.load(pages + s.to(tl.int64) * page_s + h * page_h + ref, mask=some, other=0).to(tl.int64)
    slot = tl.load(slots + s.to(tl.int64) * slot_s + h * slot_h + ref, mask=some, other=0)
    bits = tl.load(alive + s.to(tl.int64) * alive_s + h * alive_h + ref, mask=some, other=0)
    shift = tl.load(shifts + s * many + slot)
    entry = tl.arange(0, PAGE)
    where = tl.load(stored + page[:, None] * PAGE + entry[None, :], mask=some[:, None], other=UNSEEN)
    where = hidden(where, bits[:, None], entry[None, :])
    there = where != UNSEEN
    low = tl.min(where, 1)
    high = tl.max(tl.where(there, where, -UNSEEN), 1)
    top = tl.max(where, 1)
    to = extents + stream.to(tl.int64) * width + ref
    step = streams.to(tl.int64) * width
    tl.store(to, tl.where(low == UNSEEN, low, low + shift), mask=some)
    tl.store(to + step, tl.where(high == -UNSEEN, high, high + shift), mask=some)
    tl.store(to + 2 * step, tl.where(top == UNSEEN, top, top + shift), mask=some)


def extents(pages: Pages, references: References, turns: Turns) -> torch.Tensor:
    """`[3, S, H, N]` (int32), of every page that is referred to: the lowest position of an entry that is alive, the
    highest, and the highest of all entries, with the slot's shift.

    A page without a living entry has `EMPTY` and `-EMPTY`; one with an entry that is not alive, `EMPTY` in third place.
    Beyond a stream's count nothing is written.
    """
    (sequences, heads), width = references.counts.shape, references.pages.shape[2]
    found = torch.empty(3, sequences, heads, width, dtype=torch.int32, device=references.pages.device)
    block = 2048 // pages.size
    if found.numel():
        _extents[(sequences * heads, triton.cdiv(width, block))](
            pages.positions,
            references.pages,
            references.slots,
            references.alive,
            references.counts,
            *references.strides(),
            turns.shifts,
            found,
            width,
            sequences * heads,
            turns.slots,
            HEADS=heads,
            PAGE=pages.size,
            BLOCK=block,
        )
    return found
