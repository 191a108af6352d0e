"""Write: keys, values and positions of new tokens go to their pages. Importing this imports Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from longreach.attention.tables import Pages
from longreach.kv import hadamard, int4, int8

MOST = tl.constexpr(int8.MOST)
LEAST = tl.constexpr(int8.LEAST)
LOWEST, HIGHEST = tl.constexpr(int4.LOWEST), tl.constexpr(int4.HIGHEST)


@triton.jit
def _coded(new, own, scales, to, real):
    """Rows of numbers as codes, whose scales are stored: see `longreach.kv.int8`."""
    new = tl.where(own, new.to(tl.float32), 0.0)
    # What is no number shall not be one because it was compared: nothing times zero is none.
    scale = tl.maximum(tl.max(tl.abs(new), 1) / MOST, LEAST) + tl.sum(new * 0.0, 1)
    scale = scale.to(scales.dtype.element_ty)
    tl.store(scales + to, scale, mask=real)
    return tl.floor(new / scale.to(tl.float32)[:, None] + 0.5)


@triton.jit
def _pairs(lines, real, stored, scales, to, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Store rows of numbers, which are spread, as codes two to a byte, and their scales: see `longreach.kv.int4`."""
    channel = tl.arange(0, BLOCK)
    own = real[:, None] & (channel < WIDTH)[None, :]
    lower = tl.load(lines[:, None] + channel[None, :], mask=own, other=0.0).to(tl.float32)
    upper = tl.load(lines[:, None] + WIDTH + channel[None, :], mask=own, other=0.0).to(tl.float32)
    high = tl.max(tl.maximum(lower, upper), 1)
    low = tl.min(tl.minimum(lower, upper), 1)
    scale = tl.where(high >= -low, high, low) / LOWEST
    scale = tl.where(tl.abs(scale) >= LEAST, scale, LEAST) + tl.sum((lower + upper) * 0.0, 1)
    scale = scale.to(scales.dtype.element_ty)
    tl.store(scales + to, scale, mask=real)
    wide = scale.to(tl.float32)[:, None]
    pairs = (16 * _code(upper / wide) + _code(lower / wide) + 8) & 255
    tl.store(stored + to[:, None] * WIDTH + channel[None, :], pairs.to(stored.dtype.element_ty), mask=own)


@triton.jit
def _code(number):
    return tl.minimum(tl.maximum(tl.floor(number + 0.5), LOWEST), HIGHEST).to(tl.int32)


@triton.jit(do_not_specialize=["page_t", "page_h"])
def _write(
    key,
    value,
    position,
    target_pages,
    target_entries,
    page_t,
    page_h,
    key_t,
    value_t,
    keys,
    values,
    key_scales,
    value_scales,
    stored,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    SCALED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, BLOCK_HEADS)
    channel = tl.arange(0, BLOCK_DIM)
    value_channel = tl.arange(0, BLOCK_VALUE)
    page = tl.load(target_pages + token * page_t + head * page_h, mask=head < HEADS, other=-1)
    to = page.to(tl.int64) * PAGE + tl.load(target_entries + token)
    real = page >= 0
    at = tl.load(position + token)
    tl.store(stored + to, tl.zeros([BLOCK_HEADS], tl.int32) + at.to(tl.int32), mask=real)
    if PACKED:
        _pairs(key + token * key_t + head * DIM, real, keys, key_scales, to, DIM // 2, BLOCK_DIM)
        _pairs(value + token * value_t + head * VALUE_DIM, real, values, value_scales, to, VALUE_DIM // 2, BLOCK_VALUE)
        return
    own = real[:, None] & (channel < DIM)[None, :]
    new = tl.load(key + token * key_t + head[:, None] * DIM + channel[None, :], mask=own)
    if SCALED:
        new = _coded(new, own, key_scales, to, real)
    tl.store(keys + to[:, None] * DIM + channel[None, :], new.to(keys.dtype.element_ty), mask=own)
    own = real[:, None] & (value_channel < VALUE_DIM)[None, :]
    new = tl.load(value + token * value_t + head[:, None] * VALUE_DIM + value_channel[None, :], mask=own)
    if SCALED:
        new = _coded(new, own, value_scales, to, real)
    tl.store(values + to[:, None] * VALUE_DIM + value_channel[None, :], new.to(values.dtype.element_ty), mask=own)


def write(
    key: torch.Tensor,
    value: torch.Tensor,
    position: torch.Tensor,
    target_pages: torch.Tensor,
    target_entries: torch.Tensor,
    pages: Pages,
) -> None:
    """Store `key [T, H, D]` and `value [T, H, V]` of tokens at `position [T]` into `pages`, as these keep them: token
    `t`, head `h` at entry `target_entries[t]` of page `target_pages[t, h]` (int32; below 0: nowhere). No two may go to
    the same entry.

    Tokens may lie apart in `key` and `value` (as parts of one projection do); heads and channels may not.
    """
    tokens, heads, dim = key.shape
    value_dim = value.shape[2]
    for tensor in (key, value):
        assert tensor.stride(2) == 1, "channels lie side by side"
        assert heads == 1 or tensor.stride(1) == tensor.shape[2], "heads lie side by side"
    if pages.packed:
        key, value = hadamard.spread(key), hadamard.spread(value)
    if tokens:
        _write[(tokens,)](
            key,
            value,
            position,
            target_pages,
            target_entries,
            *target_pages.stride(),
            key.stride(0),
            value.stride(0),
            pages.keys,
            pages.values,
            pages.key_scales,
            pages.value_scales,
            pages.positions,
            HEADS=heads,
            DIM=dim,
            VALUE_DIM=value_dim,
            PAGE=pages.size,
            SCALED=pages.scaled,
            PACKED=pages.packed,
            BLOCK_HEADS=triton.next_power_of_2(heads),
            BLOCK_DIM=triton.next_power_of_2(dim),
            BLOCK_VALUE=triton.next_power_of_2(value_dim),
            num_warps=4,
        )


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """`x [T, H, D]` with the heads of a token side by side, as `write` wants them: itself where they are."""
    return x if x.stride(2) == 1 and (x.shape[1] == 1 or x.stride(1) == x.shape[2]) else x.contiguous()
