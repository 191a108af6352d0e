"""What the attention kernels share: softcap, who is alive, the merge of splits. Importing this imports Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from longreach.kv import hadamard

LOG2E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-1.0e30)
"""Stands for -inf in scores, so that differences of two of them are numbers."""
NOTHING = tl.constexpr(-1.0e25)
"""A row whose greatest score is below this has seen no entry, whatever the scale."""
UNSEEN = tl.constexpr(2**31 - 1)
"""The position of what no query comes after."""

STRIDES = ["page_s", "page_h", "slot_s", "slot_h", "alive_s", "alive_h", "count_s", "count_h"]
"""Arguments of every kernel that reads references: one kernel serves all values."""


@triton.jit
def capped(scores, scale, cap):
    """`cap * tanh(scores * scale / cap)` in units of log 2; `cap` and `scale` as they are typed."""
    e = tl.exp2(scores * (scale / cap * 2.0 * LOG2E))
    return (cap * LOG2E) * (1.0 - 2.0 / (e + 1.0))


@triton.jit
def hidden(where, bits, entry):
    """Positions `where`, with those of entries that are not alive replaced by one that nobody sees."""
    # In halves of 32 bits: a shift of 64 costs several instructions.
    low = bits.to(tl.int32)
    high = (bits >> 32).to(tl.int32)
    word = tl.where(entry < 32, low, high)
    return tl.where(((word >> (entry & 31)) & 1) != 0, where, UNSEEN)


@triton.jit
def turned(query, crossed, cosines, sines, channel, PAIRS: tl.constexpr):
    """The query, turned by one slot: `crossed` holds its partner channels with their signs; both float32."""
    of = channel % PAIRS
    inside = channel < 2 * PAIRS
    cos = tl.load(cosines + of, mask=inside, other=1.0)
    sin = tl.load(sines + of, mask=inside, other=0.0)
    return query * cos[None, :] + crossed * sin[None, :]


@triton.jit
def halves(stored):
    """Both codes of each byte (`kv.int4`), times 16, as whole numbers of 8 bits, which a GPU converts quickly."""
    return ((stored << 4) ^ 128).to(tl.int8, bitcast=True), (stored & 240).to(tl.int8, bitcast=True)


@triton.jit
def spread(numbers, signs, channel, to, DIM: tl.constexpr, SHARE: tl.constexpr, PRECISION: tl.constexpr):
    """`kv.hadamard.spread` of rows of `numbers`: what it gives for the channels `to`, and 0 beyond all."""
    inside = (channel < DIM)[:, None] & (to < DIM)[None, :]
    matrix = tl.load(signs + channel[:, None] * DIM + to[None, :], mask=inside, other=0.0)
    return tl.dot(numbers.to(matrix.dtype), matrix, input_precision=PRECISION) * SHARE


@triton.jit(do_not_specialize=["count"])
def _merge(
    parts,
    part_lse,
    out,
    lse,
    count,
    BLOCK_SPLITS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, BLOCK_SPLITS)
    channel = tl.arange(0, BLOCK_DIM)
    some = split < count
    sums = tl.load(part_lse + row * count + split, mask=some, other=float("-inf"))
    top = tl.max(sums, 0)
    base = tl.where(top == float("-inf"), 0.0, top)
    weight = tl.exp2((sums - base) * LOG2E)
    total = tl.sum(weight, 0)
    part = tl.load(
        parts + (row * count + split[:, None]) * DIM + channel[None, :],
        mask=some[:, None] & (channel < DIM)[None, :],
        other=0.0,
    )
    safe = tl.where(total > 0, total, 1.0)
    mixed = tl.sum(part * weight[:, None], 0) / safe
    tl.store(out + row * DIM + channel, mixed.to(out.dtype.element_ty), mask=channel < DIM)
    tl.store(lse + row, tl.where(total > 0, base + tl.log(safe), float("-inf")))


class Parts:
    """Room for the outputs of `splits` parts of every row, and their merge. With one split, that is the output
    itself."""

    def __init__(self, query: torch.Tensor, dim: int, splits: int) -> None:
        tokens, heads = query.shape[:2]
        self.splits = splits
        self.output = query.new_empty(tokens, heads, dim)
        self.lse = query.new_empty(tokens, heads, dtype=torch.float32)
        self.part, self.part_lse = self.output, self.lse
        if splits > 1:
            self.part = query.new_empty(tokens, heads, splits, dim, dtype=torch.float32)
            self.part_lse = query.new_empty(tokens, heads, splits, dtype=torch.float32)

    def merged(self, spread: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Output `[tokens, heads, dim]` and log-sum-exp `[tokens, heads]`; where values were `spread`, it is not."""
        if self.splits > 1 and self.lse.numel():
            dim = self.output.shape[2]
            _merge[(self.lse.numel(),)](
                self.part,
                self.part_lse,
                self.output,
                self.lse,
                self.splits,
                BLOCK_SPLITS=triton.next_power_of_2(self.splits),
                DIM=dim,
                BLOCK_DIM=triton.next_power_of_2(dim),
                num_warps=4,
            )
        return hadamard.spread(self.output) if spread else self.output, self.lse
