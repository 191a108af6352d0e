"""Queries as keys that are spread want them: turned for every slot, then spread. Importing this imports Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from longreach.attention.tables import Pages, Turns
from longreach.attention.triton_parts import spread, turned
from longreach.kv import hadamard


@triton.jit(do_not_specialize=["many"])
def _turn(
    query,
    cosines,
    sines,
    signs,
    out,
    many,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    TURNED: tl.constexpr,
    PAIRS: tl.constexpr,
    SHARE: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    of = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK_DIM)
    own = (row < HEADS)[:, None] & (channel < DIM)[None, :]
    lines = query + (of // many * HEADS + row)[:, None] * DIM
    q = tl.load(lines + channel[None, :], mask=own, other=0.0).to(tl.float32)
    if TURNED:
        partner = tl.where(channel < 2 * PAIRS, (channel + PAIRS) % (2 * PAIRS), channel)
        crossed = tl.load(lines + partner[None, :], mask=own, other=0.0).to(tl.float32)
        crossed *= tl.where(channel < PAIRS, 1.0, -1.0)[None, :]
        q = turned(q, crossed, cosines + of * PAIRS, sines + of * PAIRS, channel, PAIRS)
    q = spread(q, signs, channel, channel, DIM, SHARE, PRECISION)
    tl.store(out + (of * HEADS + row)[:, None] * DIM + channel[None, :], q.to(out.dtype.element_ty), mask=own)


def turned_and_spread(query: torch.Tensor, pages: Pages, turns: Turns) -> torch.Tensor:
    """`query [S, Hq, D]` for the keys of each slot, `[S, slots, Hq, D]`."""
    tokens, heads, dim = query.shape
    many = turns.slots
    out = query.new_empty(tokens, many, heads, dim)
    if tokens:
        _turn[(tokens * many, triton.cdiv(heads, 16))](
            query,
            turns.cosines,
            turns.sines,
            pages.signs(query),
            out,
            many,
            HEADS=heads,
            DIM=dim,
            TURNED=many > 1,
            PAIRS=max(turns.cosines.shape[2], 1),
            SHARE=hadamard.block_of(dim) ** -0.5,
            PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
            ROWS=16,
            BLOCK_DIM=max(16, triton.next_power_of_2(dim)),
            num_warps=4,
        )
    return out
