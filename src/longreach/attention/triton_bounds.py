"""Bounds of pages: how great the score of a page's best entry can be, without reading its keys. Importing this imports
Triton.

Tang et al. 2024, Quest (arXiv 2406.10774): with the least and the greatest value of every channel over a page's keys,
no entry scores above `sum_d max(q_d * least_d, q_d * greatest_d)`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from longreach.attention.tables import Pages, References, Turns, check
from longreach.attention.triton_parts import UNSEEN, halves, spread
from longreach.kv import hadamard


@triton.jit
def _bound(
    keys,
    key_scales,
    stored,
    which,
    signs,
    bounds,
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    SCALED: tl.constexpr,
    PACKED: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    page = tl.load(which + tl.program_id(0)).to(tl.int64)
    entry = tl.arange(0, PAGE)
    channel = tl.arange(0, BLOCK_DIM)
    real = (channel < DIM) & (page >= 0)
    written = (tl.load(stored + page * PAGE + entry, mask=page >= 0, other=UNSEEN) != UNSEEN)[:, None]
    if PACKED:
        lines = keys + (page * PAGE + entry[:, None]) * (DIM // 2) + (channel % (DIM // 2))[None, :]
        first, second = halves(tl.load(lines, mask=written & real[None, :], other=0))
        key = tl.where((channel < DIM // 2)[None, :], first, second).to(tl.float32)
    else:
        lines = keys + (page * PAGE + entry[:, None]) * DIM + channel[None, :]
        key = tl.load(lines, mask=written & real[None, :], other=0).to(tl.float32)
    if SCALED:
        key *= tl.load(key_scales + page * PAGE + entry, mask=page >= 0, other=0.0).to(tl.float32)[:, None]
    if PACKED:
        key = spread(key, signs, channel, channel, DIM, SHARE / 16, "ieee")
    least = tl.min(tl.where(written, key, float("inf")), 0)
    greatest = tl.max(tl.where(written, key, float("-inf")), 0)
    to = bounds + page * 2 * DIM + channel
    tl.store(to, least.to(bounds.dtype.element_ty), mask=real)
    tl.store(to + DIM, greatest.to(bounds.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["page_s", "page_h", "slot_s", "slot_h", "count_s", "count_h", "width", "many"])
def _score(
    query,
    bounds,
    pages,
    slots,
    counts,
    page_s,
    page_h,
    slot_s,
    slot_h,
    count_s,
    count_h,
    cosines,
    sines,
    scores,
    width,
    many,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    TURNED: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    stream = tl.program_id(0)
    s = stream // HEADS
    h = stream % HEADS
    count = tl.load(counts + s * count_s + h * count_h)
    channel = tl.arange(0, BLOCK_DIM)
    real = channel < DIM
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    page = tl.load(pages + s.to(tl.int64) * page_s + h * page_h + i, mask=inside, other=0).to(tl.int64)
    at = bounds + page[:, None] * 2 * DIM + channel[None, :]
    own = inside[:, None] & real[None, :]
    least = tl.load(at, mask=own, other=0.0).to(tl.float32)
    greatest = tl.load(at + DIM, mask=own, other=0.0).to(tl.float32)
    if TURNED:
        slot = tl.load(slots + s.to(tl.int64) * slot_s + h * slot_h + i, mask=inside, other=0)
        of = ((s * many + slot) * PAIRS)[:, None] + (channel % PAIRS)[None, :]
        paired = (channel < 2 * PAIRS)[None, :]
        cos = tl.load(cosines + of, mask=paired, other=1.0)
        sin = tl.load(sines + of, mask=paired, other=0.0)
        partner = tl.where(channel < 2 * PAIRS, (channel + PAIRS) % (2 * PAIRS), channel)
        sign = tl.where(channel < PAIRS, 1.0, -1.0)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    for g in tl.static_range(GROUP):
        line = query + (stream * GROUP + g) * DIM
        q = tl.load(line + channel, mask=real, other=0.0).to(tl.float32)[None, :]
        if TURNED:
            crossed = tl.load(line + partner, mask=real, other=0.0).to(tl.float32) * sign
            q = q * cos + crossed[None, :] * sin
        product = tl.maximum(q * least, q * greatest)
        best = tl.maximum(best, tl.sum(tl.where(own, product, 0.0), 1))
    tl.store(scores + stream.to(tl.int64) * width + i, tl.where(inside, best, float("-inf")), mask=i < width)


def bound(pages: Pages, which: torch.Tensor, bounds: torch.Tensor) -> None:
    """For the pages `which [M]` (int32; below 0: none), store into `bounds [P, 2, D]` the least and the greatest
    value of each channel over the keys that were written. A page with none gets inf and -inf."""
    assert bounds.is_contiguous()
    dim = bounds.shape[2]
    if len(which):
        _bound[(len(which),)](
            pages.keys,
            pages.key_scales,
            pages.positions,
            which,
            hadamard.signs(dim, bounds.device) if pages.packed else None,
            bounds,
            DIM=dim,
            PAGE=pages.size,
            SCALED=pages.scaled,
            PACKED=pages.packed,
            SHARE=hadamard.block_of(dim) ** -0.5,
            BLOCK_DIM=max(16, triton.next_power_of_2(dim)),
            num_warps=4,
        )


def score(
    query: torch.Tensor, pages: Pages, bounds: torch.Tensor, references: References, turns: Turns
) -> torch.Tensor:
    """The greatest product that any `query [S, Hq, D]` of a KV head's group, turned for each page's slot, can have with
    a key of each page: float32 `[S, H, N]`, before any scale; -inf beyond a stream's count. Raises
    `UnsupportedError`."""
    check(query, pages, references, turns)
    assert bounds.is_contiguous()
    (sequences, heads), width = references.counts.shape, references.pages.shape[2]
    scores = query.new_empty(sequences, heads, width, dtype=torch.float32)
    block = 16
    if scores.numel():
        page, slot, _, count = (references.strides()[2 * i : 2 * i + 2] for i in range(4))
        _score[(sequences * heads, triton.cdiv(width, block))](
            query,
            bounds,
            references.pages,
            references.slots,
            references.counts,
            *page,
            *slot,
            *count,
            turns.cosines,
            turns.sines,
            scores,
            width,
            turns.slots,
            HEADS=heads,
            GROUP=query.shape[1] // heads,
            DIM=query.shape[2],
            TURNED=turns.slots > 1,
            PAIRS=max(turns.cosines.shape[2], 1),
            BLOCK=block,
            BLOCK_DIM=triton.next_power_of_2(query.shape[2]),
            num_warps=4,
        )
    return scores
