"""What happens to each token's vector between two products, on CUDA: sums and norms, gates, rotations.

Each is one kernel where PyTorch takes three to ten. Sums are taken in float32 and rounded once. Importing this imports
Triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["x_t", "y_t"])
def _add_norm(x, y, weight, total, normed, x_t, y_t, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < SIZE
    one = tl.load(x + row * x_t + at, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(y + row * y_t + at, mask=inside, other=0.0).to(tl.float32)
    rounded = (one + other).to(total.dtype.element_ty)
    tl.store(total + row * SIZE + at, rounded, mask=inside)
    value = rounded.to(tl.float32)
    length = tl.sum(value * value, 0) / SIZE
    scaled = value * tl.rsqrt(length + eps) * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * SIZE + at, scaled.to(normed.dtype.element_ty), mask=inside)


def add_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + y [..., size]`, and its root mean square norm times `weight [size]`."""
    if x.shape != y.shape:
        total = x + y
        return total, torch.rms_norm(total, weight.shape, weight, eps)
    size = x.shape[-1]
    one, other = x.reshape(-1, size), y.reshape(-1, size)
    total, normed = one.new_empty(one.shape), one.new_empty(one.shape)
    block = triton.next_power_of_2(size)
    warps = 4 if block <= 2048 else 8
    _add_norm[(len(one),)](
        one, other, weight, total, normed, one.stride(0), other.stride(0), eps, SIZE=size, BLOCK=block, num_warps=warps
    )
    return total.view(x.shape), normed.view(x.shape)


@triton.jit(do_not_specialize=["gate_t", "up_t", "size"])
def _gated(gate, up, out, gate_t, up_t, size, SILU: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    g = tl.load(gate + row * gate_t + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_t + at, mask=inside, other=0.0).to(tl.float32)
    # Both forms are g * sigmoid(h): 0.5 (1 + tanh(z)) is sigmoid(2 z), Hendrycks and Gimpel 2016, arXiv 1606.08415.
    h = g if SILU else 1.5957691216057308 * (g + 0.044715 * g * g * g)
    tl.store(out + row * size + at, (g * tl.sigmoid(h) * u).to(out.dtype.element_ty), mask=inside)


def gated(gate: Tensor, up: Tensor, silu: bool) -> Tensor:
    """`silu(gate) * up`, all `[..., size]`; with gelu (its tanh form) where not `silu`."""
    size = gate.shape[-1]
    one, other = (x.flatten(0, -2) for x in (gate, up))
    out = gate.new_empty(gate.shape)
    block = 1024
    _gated[(len(one), triton.cdiv(size, block))](
        one, other, out, one.stride(0), other.stride(0), size, SILU=silu, BLOCK=block, num_warps=4
    )
    return out


@triton.jit(do_not_specialize=["x_t", "x_h", "y_t", "y_h", "cos_t", "sin_t"])
def _rotated(
    x,
    y,
    cos,
    sin,
    x_out,
    y_out,
    x_t,
    x_h,
    y_t,
    y_h,
    cos_t,
    sin_t,
    X_HEADS: tl.constexpr,
    Y_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    first = tl.cdiv(X_HEADS, HEADS)  # programs from here on have heads of y
    head = part * HEADS + tl.arange(0, HEADS)
    if part < first:
        source = x + token * x_t + head * x_h
        to = x_out + (token * X_HEADS + head) * (2 * HALF)
        inside = head < X_HEADS
    else:
        head -= first * HEADS
        source = y + token * y_t + head * y_h
        to = y_out + (token * Y_HEADS + head) * (2 * HALF)
        inside = head < Y_HEADS
    pair = tl.arange(0, BLOCK)
    real = pair < HALF
    own = inside[:, None] & real[None, :]
    low = tl.load(source[:, None] + pair[None, :], mask=own, other=0.0).to(tl.float32)
    high = tl.load(source[:, None] + HALF + pair[None, :], mask=own, other=0.0).to(tl.float32)
    cos += token * cos_t
    sin += token * sin_t
    low_cos = tl.load(cos + pair, mask=real, other=0.0).to(tl.float32)[None, :]
    low_sin = tl.load(sin + pair, mask=real, other=0.0).to(tl.float32)[None, :]
    high_cos = tl.load(cos + HALF + pair, mask=real, other=0.0).to(tl.float32)[None, :]
    high_sin = tl.load(sin + HALF + pair, mask=real, other=0.0).to(tl.float32)[None, :]
    form = x_out.dtype.element_ty
    tl.store(to[:, None] + pair[None, :], (low * low_cos - high * low_sin).to(form), mask=own)
    tl.store(to[:, None] + HALF + pair[None, :], (high * high_cos + low * high_sin).to(form), mask=own)


def rotated(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys `x` and `y` `[1, heads, T, dim]` turned by angles whose cosines and sines are `[1, 1, T, dim]`:
    `x * cos + (-x₂, x₁) * sin` of halves `x₁, x₂` (Su et al. 2021, arXiv 2104.09864). What is given back lies in
    memory token by token."""
    (_, x_heads, tokens, dim), y_heads = x.shape, y.shape[1]
    outs = [x.new_empty(1, tokens, heads, dim).transpose(1, 2) for heads in (x_heads, y_heads)]
    heads = min(8, triton.next_power_of_2(max(x_heads, y_heads)))
    _rotated[(tokens, triton.cdiv(x_heads, heads) + triton.cdiv(y_heads, heads))](
        x,
        y,
        cos,
        sin,
        *outs,
        x.stride(2),
        x.stride(1),
        y.stride(2),
        y.stride(1),
        cos.stride(2),
        sin.stride(2),
        X_HEADS=x_heads,
        Y_HEADS=y_heads,
        HALF=dim // 2,
        HEADS=heads,
        BLOCK=triton.next_power_of_2(dim // 2),
        num_warps=4,
    )
    return outs[0], outs[1]
