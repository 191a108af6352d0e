"""Decode: one new token of every sequence attends to its pages. Importing this imports Triton.

Split-KV (Dao et al. 2023, "Flash-Decoding for long-context inference"): the pages of a stream are shared out over
several programs, whose outputs are merged by their log-sum-exp. A program reads a stream's count on the device and
takes its part of it, so that a captured graph stays right while counts grow.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from longreach.attention.tables import Pages, References, Turns, check
from longreach.attention.triton_parts import (
    LOG2E,
    LOWEST,
    NOTHING,
    STRIDES,
    Parts,
    capped,
    halves,
    hidden,
    turned,
)
from longreach.attention.triton_turn import turned_and_spread
from longreach.attention.tuning import DecodeTuning, decode_tuning, splits


@triton.jit(do_not_specialize=[*STRIDES, "window", "parts", "many"])
def _decode(
    query,
    position,
    keys,
    values,
    key_scales,
    value_scales,
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
    cosines,
    sines,
    shifts,
    out,
    lse,
    scale,
    window,
    softcap,
    parts,
    many,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    SCALED: tl.constexpr,
    PACKED: tl.constexpr,
    TURNED: tl.constexpr,
    PAIRS: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    # Of 4 bits, channels are read in two halves: what is called as without them is then the lower one.
    WIDTH: tl.constexpr = DIM // 2 if PACKED else DIM
    VALUE_WIDTH: tl.constexpr = VALUE_DIM // 2 if PACKED else VALUE_DIM
    part = tl.program_id(0) % parts
    stream = tl.program_id(0) // parts
    s = stream // HEADS
    h = stream % HEADS
    count = tl.load(counts + s * count_s + h * count_h)
    first = (count * part) // parts
    last = (count * (part + 1)) // parts
    pages += s.to(tl.int64) * page_s + h * page_h
    slots += s.to(tl.int64) * slot_s + h * slot_h
    alive += s.to(tl.int64) * alive_s + h * alive_h

    row = tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK_DIM)
    value_channel = tl.arange(0, BLOCK_VALUE)
    entry = tl.arange(0, PAGE)
    head = stream * GROUP + row
    own = (row < GROUP)[:, None] & (channel < WIDTH)[None, :]
    if PACKED:  # queries of all slots are given
        lines = query + (s.to(tl.int64) * many * HEADS * GROUP + h * GROUP + row)[:, None] * DIM + channel[None, :]
        q = tl.load(lines, mask=own, other=0.0)
        q_upper = tl.load(lines + WIDTH, mask=own, other=0.0)
    else:
        q = tl.load(query + head[:, None] * DIM + channel[None, :], mask=own, other=0.0)
    if TURNED and not PACKED:
        partner = tl.where(channel < 2 * PAIRS, (channel + PAIRS) % (2 * PAIRS), channel)
        crossed = tl.load(query + head[:, None] * DIM + partner[None, :], mask=own, other=0.0).to(tl.float32)
        crossed *= tl.where(channel < PAIRS, 1.0, -1.0)[None, :]
        plain = q.to(tl.float32)
    at = tl.load(position + s)

    top = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_VALUE], tl.float32)
    if PACKED:
        acc_upper = tl.zeros([ROWS, BLOCK_VALUE], tl.float32)
    # What refers to a page is read one page ahead: nothing waits for it.
    some = first < last
    page = tl.load(pages + first, mask=some, other=0)
    slot = tl.load(slots + first, mask=some, other=0)
    bits = tl.load(alive + first, mask=some, other=0)
    for i in range(first, last):
        this = page.to(tl.int64) * PAGE
        of = s * many + slot
        where = hidden(tl.load(stored + this + entry), bits, entry)
        # Offsets within a page stay the same: only the page's own address is of 64 bits.
        k = tl.load(
            keys + this * WIDTH + (entry[None, :] * WIDTH + channel[:, None]),
            mask=(channel < WIDTH)[:, None] if BLOCK_DIM != WIDTH else None,
            other=0.0 if BLOCK_DIM != WIDTH else None,
        )
        v = tl.load(
            values + this * VALUE_WIDTH + (entry[:, None] * VALUE_WIDTH + value_channel[None, :]),
            mask=(value_channel < VALUE_WIDTH)[None, :] if BLOCK_VALUE != VALUE_WIDTH else None,
            other=0.0 if BLOCK_VALUE != VALUE_WIDTH else None,
        )
        if SCALED:  # whole numbers up to 128 are exact in any of the formats
            key_scale = tl.load(key_scales + this + entry).to(tl.float32)
            value_scale = tl.load(value_scales + this + entry).to(tl.float32)
            if PACKED:
                k, k_upper = halves(k)
                v, v_upper = halves(v)
                k_upper = k_upper.to(query.dtype.element_ty)
                v_upper = v_upper.to(query.dtype.element_ty)
                key_scale *= 1 / 16
                value_scale *= 1 / 16
            k = k.to(query.dtype.element_ty)
            v = v.to(query.dtype.element_ty)
        limit = at - tl.load(shifts + of)
        if TURNED and PACKED:
            q = tl.load(lines + slot * (HEADS * GROUP * DIM), mask=own, other=0.0)
            q_upper = tl.load(lines + slot * (HEADS * GROUP * DIM) + WIDTH, mask=own, other=0.0)
        elif TURNED:
            # Always, and not only where the slot changes: a branch here would keep the loads from being pipelined.
            q = turned(plain, crossed, cosines + of * PAIRS, sines + of * PAIRS, channel, PAIRS).to(k.dtype)
        ahead = tl.minimum(i + 1, last - 1)
        page = tl.load(pages + ahead)
        slot = tl.load(slots + ahead)
        bits = tl.load(alive + ahead)
        scores = tl.dot(q, k, input_precision=PRECISION)
        if PACKED:
            scores = tl.dot(q_upper, k_upper, scores, input_precision=PRECISION)
        if SCALED:
            scores *= key_scale[None, :]
        scores = capped(scores, scale, softcap) if SOFTCAP else scores * (scale * LOG2E)
        seen = where <= limit
        if WINDOW:
            seen = seen & (where > limit - window)
        scores = tl.where(seen[None, :], scores, LOWEST)
        higher = tl.maximum(top, tl.max(scores, 1))
        fade = tl.exp2(top - higher)
        weight = tl.exp2(scores - higher[:, None])
        total = total * fade + tl.sum(weight, 1)
        if SCALED:
            weight *= value_scale[None, :]
        acc = tl.dot(weight.to(v.dtype), v, acc * fade[:, None], input_precision=PRECISION)
        if PACKED:
            acc_upper = tl.dot(weight.to(v.dtype), v_upper, acc_upper * fade[:, None], input_precision=PRECISION)
        top = higher

    saw = top > NOTHING
    total = tl.where(saw, total, 1.0)
    result = tl.where(saw[:, None], acc / total[:, None], 0.0)
    to = head * parts + part
    own = (row < GROUP)[:, None] & (value_channel < VALUE_WIDTH)[None, :]
    lines = out + to[:, None] * VALUE_DIM + value_channel[None, :]
    tl.store(lines, result.to(out.dtype.element_ty), mask=own)
    if PACKED:
        result = tl.where(saw[:, None], acc_upper / total[:, None], 0.0)
        tl.store(lines + VALUE_WIDTH, result.to(out.dtype.element_ty), mask=own)
    tl.store(lse + to, tl.where(saw, top / LOG2E + tl.log(total), float("-inf")), mask=row < GROUP)


def decode(
    query: torch.Tensor,
    position: torch.Tensor,
    pages: Pages,
    references: References,
    turns: Turns,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    parts: int | None = None,
    tuning: DecodeTuning | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of `query [S, Hq, D]` at `position [S]` (int32): one token of every sequence, whose keys and values
    were written before.

    A query sees an entry that is alive, whose stored position plus shift is not after its own, and within the last
    `window` positions. Scores are products times `scale` (> 0), then `softcap * tanh(score / softcap)`. Returns the
    output `[S, Hq, V]` in the query's dtype and the log-sum-exp `[S, Hq]` in float32: 0 and -inf where nothing is seen.
    `parts` (of each stream, read apart) and `tuning` are chosen from the shapes where they are not given. Nothing waits
    for the device. Raises `UnsupportedError`.
    """
    check(query, pages, references, turns)
    streams, width = references.counts.numel(), references.pages.shape[2]
    heads, dim, value_dim = references.pages.shape[1], query.shape[2], pages.value_dim
    group = query.shape[1] // heads
    if tuning is None:
        line = dim * pages.multiplied(query).itemsize
        tuning = decode_tuning(pages.size, line, group, width * len(query))
    if parts is None:
        parts = splits(streams, width, tuning.resident * processors(query.device))
    room = Parts(query, value_dim, parts)
    if pages.packed:
        query = turned_and_spread(query, pages, turns)
    if streams:
        _decode[(streams * parts,)](
            query,
            position,
            pages.keys,
            pages.values,
            pages.key_scales,
            pages.value_scales,
            pages.positions,
            references.pages,
            references.slots,
            references.alive,
            references.counts,
            *references.strides(),
            turns.cosines,
            turns.sines,
            turns.shifts,
            room.part,
            room.part_lse,
            scale,
            window or 0,
            softcap or 1.0,
            parts,
            turns.slots,
            HEADS=heads,
            GROUP=group,
            DIM=dim,
            VALUE_DIM=value_dim,
            PAGE=pages.size,
            SCALED=pages.scaled,
            PACKED=pages.packed,
            TURNED=turns.slots > 1,
            PAIRS=max(turns.cosines.shape[2], 1),
            WINDOW=window is not None,
            SOFTCAP=softcap is not None,
            PRECISION="ieee" if pages.multiplied(query) == torch.float32 else "tf32",
            ROWS=max(16, triton.next_power_of_2(group)),
            BLOCK_DIM=max(16, triton.next_power_of_2(pages.keys.shape[2])),
            BLOCK_VALUE=max(16, triton.next_power_of_2(pages.values.shape[2])),
            num_warps=tuning.warps,
            num_stages=tuning.stages,
        )
    return room.merged(pages.packed)


@functools.cache
def processors(device: torch.device) -> int:
    """How many streaming multiprocessors `device` has; 1 where it is no GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
