"""Attention to the pages with the greatest bounds. Importing this imports Triton.

A stream's pages are chosen by one program, which holds all their scores: it finds the score of the last one that is
chosen bit by bit, then writes down the chosen ones in their order. All shapes are fixed, so that it can be captured.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from longreach.attention.attend import Scores
from longreach.attention.tables import Pages, References, Turns
from longreach.attention.triton_bounds import score
from longreach.attention.triton_decode import decode


@triton.jit(
    do_not_specialize=[
        "page_s",
        "page_h",
        "slot_s",
        "slot_h",
        "alive_s",
        "alive_h",
        "count_s",
        "count_h",
        "width",
        "most",
    ]
)
def _select(
    scores,
    wanted,
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
    to_pages,
    to_slots,
    to_alive,
    to_counts,
    width,
    most,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    stream = tl.program_id(0)
    s = stream // HEADS
    h = stream % HEADS
    count = tl.load(counts + s * count_s + h * count_h)
    many = tl.minimum(tl.load(wanted + s), most)
    i = tl.arange(0, BLOCK)
    inside = i < count
    given = tl.load(scores + stream.to(tl.int64) * width + i, mask=i < width, other=float("-inf"))
    # As whole numbers in the order of the scores: those below 0 turned over, and moved above 0. The last page is being
    # written and comes first; what is no page comes last.
    bits = given.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, ~bits, bits ^ -2147483648).to(tl.uint32, bitcast=True)
    order = tl.where(inside, tl.maximum(order, 1), 0)
    order = tl.where(i == count - 1, 0xFFFFFFFF, order).to(tl.uint32)
    least = tl.zeros([], tl.uint32)
    for bit in tl.static_range(32):
        higher = least | (1 << (31 - bit))
        least = tl.where(tl.sum((order >= higher).to(tl.int32), 0) >= many, higher, least)
    above = order > least
    level = (order == least) & inside
    rank = tl.cumsum(level.to(tl.int32), 0)
    chosen = above | (level & (rank <= many - tl.sum(above.to(tl.int32), 0)))
    chosen = tl.where(count <= many, inside, chosen)
    to = stream.to(tl.int64) * most + tl.cumsum(chosen.to(tl.int32), 0) - 1
    tl.store(
        to_pages + to, tl.load(pages + s.to(tl.int64) * page_s + h * page_h + i, mask=chosen, other=0), mask=chosen
    )
    tl.store(
        to_slots + to, tl.load(slots + s.to(tl.int64) * slot_s + h * slot_h + i, mask=chosen, other=0), mask=chosen
    )
    tl.store(
        to_alive + to, tl.load(alive + s.to(tl.int64) * alive_s + h * alive_h + i, mask=chosen, other=0), mask=chosen
    )
    tl.store(to_counts + stream, tl.minimum(count, many))


def select(scores: torch.Tensor, references: References, wanted: torch.Tensor, most: int) -> References:
    """Of each stream, the `wanted [S]` (int32; at most `most` of them) references with the greatest `scores [S, H, N]`,
    in their order; the last one always, and of equal ones the first."""
    sequences, heads, width = scores.shape
    shape = (sequences, heads, most)
    pages, slots = (scores.new_zeros(shape, dtype=torch.int32) for _ in range(2))
    alive = scores.new_zeros(shape, dtype=torch.int64)
    counts = scores.new_zeros(shape[:2], dtype=torch.int32)
    block = triton.next_power_of_2(max(width, 16))
    if counts.numel():
        _select[(counts.numel(),)](
            scores,
            wanted,
            references.pages,
            references.slots,
            references.alive,
            references.counts,
            *references.strides(),
            pages,
            slots,
            alive,
            counts,
            width,
            most,
            HEADS=heads,
            BLOCK=block,
            num_warps=4 if block <= 1024 else 8,
        )
    return References(pages, slots, alive, counts)


def decode_selected(
    query: torch.Tensor,
    position: torch.Tensor,
    pages: Pages,
    bounds: torch.Tensor,
    references: References,
    turns: Turns,
    wanted: torch.Tensor,
    most: int,
    scores: Scores,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `decode`, each stream reading no more than `wanted [S]` of its pages: those whose `bounds [P, 2, D]` promise
    the greatest scores, and the one being written."""
    chosen = select(score(query, pages, bounds, references, turns), references, wanted, most)
    return decode(
        query, position, pages, chosen, turns, scale=scores.scale, window=scores.window, softcap=scores.softcap
    )
