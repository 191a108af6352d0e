"""Products with the weights in 8 or 4 bits.

A decoding step reads every weight once and computes little with it, so bytes are time. Three forms, by what they round:

- by groups: weights to 4 or 8 bits, with a scale, and in 4 bits a middle, for every 32 of a row. This is how GGUF's
  Q4_0, Q4_1 and Q8_0 store them: a model that comes from there loses next to nothing. Vectors are rounded to bfloat16.
  Quick for few tokens only.
- by rows: each row of weights to 8 bits, vectors to 16, as two numbers of 8 bits. As near as 8 bits by groups, and
  three times as quick where the processor multiplies 8-bit numbers; worth a dozen operations for a large matrix only.
- dynamically: each row of weights to 8 bits, and each token's vector to 8 bits as it comes. Quick for many tokens,
  since the processor multiplies 8-bit numbers several times as fast; the rounding of vectors costs quality.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Product: TypeAlias = Callable[[Tensor], Tensor]
"""`x [1, tokens, in] -> x @ weight.T + bias [1, tokens, out]`, in the format of `x`."""

Grouped: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Numbers 0 to 15 `[out, in]`, scales and middles `[out, in / 32]`: `(number - 8) * scale + middle` is the weight."""

GROUP = 32
_NEAR = 0.02
"""8 bits a row are taken where products stay as near as that."""
_FINER = 254
"""What is left of a number after rounding, at most a half, fills 8 bits when taken as often."""
LOSSLESS = 0.01
"""A matrix that 4 bits change by no more than this was stored in 4 bits; others lose about 0.1."""


def dynamically(weight: Tensor, bias: Tensor | None) -> tuple[Product, int]:
    """The product with `weight [out, in]` in 8 bits a row, vectors in 8 bits, and the bytes that it takes."""
    exact = weight.detach().float()
    packed, scales = _packed_rows(exact)
    multiply = torch.ops.quantized.linear_dynamic.default
    own = weight.dtype

    def run(x: Tensor) -> Tensor:
        # The operation rounds all vectors on one scale: brought to the same length first, each has its own.
        lengths = x.float().abs().amax(dim=-1, keepdim=True).clamp_min_(1e-12)
        y: Tensor = multiply(x / lengths, packed).mul_(lengths)
        return (y if bias is None else y.add_(bias)).to(own)

    return run, exact.numel() + scales.nbytes


def by_rows(weight: Tensor, bias: Tensor | None) -> tuple[Product, int]:
    """The product with `weight [out, in]` in 8 bits a row, vectors in 16. Columns are brought half way to one size
    first, and the vectors take what that leaves (Xiao et al. 2022, arXiv 2211.10438): a large column then costs the
    small ones less. Raises RuntimeError where that is too far from the weights, or products overflow here."""
    columns = weight.detach().float().abs().amax(dim=0).clamp_min(1e-6).sqrt()
    packed, scales = _packed_rows(weight.detach().float() / columns)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
    own, (outputs, inputs) = weight.dtype, weight.shape

    def run(x: Tensor) -> Tensor:
        wide = x.reshape(-1, inputs) * columns
        lengths = torch.linalg.vector_norm(wide, torch.inf, -1, True).mul_(1 / 127).clamp_min_(1e-12)
        lower = wide.div_(lengths)  # -127 to 127 of them
        upper = lower.round()
        both = torch.cat((upper, lower.sub_(upper).mul_(_FINER)))
        upper, lower = multiply(both, 1.0, 128, packed).chunk(2)
        y: Tensor = upper.add_(lower, alpha=1 / _FINER).mul_(lengths).view(*x.shape[:-1], outputs)
        return (y if bias is None else y.add_(bias)).to(own)

    if _loss_of(run, weight, bias) > _NEAR:
        raise RuntimeError("8 bits a row do not hold this matrix, or their products overflow on this processor")
    return run, weight.numel() + scales.nbytes


def _loss_of(run: Product, weight: Tensor, bias: Tensor | None) -> float:
    """How far a product is from that with `weight`, for vectors that add up as far as they can."""
    some = weight.detach()[:: max(1, len(weight) // 64)]
    given = torch.cat((some.sign(), some))
    wanted = given.float() @ weight.detach().float().T
    wanted = wanted if bias is None else wanted + bias.detach().float()
    return float((run(given).float() - wanted).norm() / wanted.norm().clamp_min(1e-12))


def _packed_rows(weight: Tensor) -> tuple[Any, Tensor]:
    """`weight [out, in]` (float32) in 8 bits a row, as PyTorch wants it for its products, and the scales `[out]`."""
    scales = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
    with warnings.catch_warnings(action="ignore"):
        whole = torch.quantize_per_channel(weight, scales.double(), torch.zeros(len(weight)).long(), 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(whole, None), scales


def in_4_bits(weight: Tensor, bias: Tensor | None) -> tuple[Product, int]:
    """The product with `weight [out, in]`, `in` a multiple of 32 and `out` of 16, and the bytes that it takes."""
    return _by_groups([four_bits(weight)], weight, bias)


def in_4_bits_or_8(weight: Tensor, bias: Tensor | None) -> tuple[Product, int]:
    """In 4 bits where that changes `weight` by no more than `LOSSLESS`, else in 8."""
    grouped = four_bits(weight)
    return _by_groups([grouped], weight, bias) if loss(grouped, weight) <= LOSSLESS else in_8_bits(weight, bias)


def in_4_bits_or_8_by_rows(weight: Tensor, bias: Tensor | None) -> tuple[Product, int]:
    """The same for a large matrix."""
    grouped = four_bits(weight)
    if loss(grouped, weight) <= LOSSLESS:
        return _by_groups([grouped], weight, bias)
    try:
        return by_rows(weight, bias)
    except (RuntimeError, AttributeError):
        return in_8_bits(weight, bias)


def in_8_bits(weight: Tensor, bias: Tensor | None) -> tuple[Product, int]:
    """The same in 8 bits: PyTorch has a quick kernel for 4 bits with groups, so two of them, upper and lower half, side
    by side for the same vector twice, make one of 8."""
    groups = _groups(weight)
    scales = (groups.abs().amax(dim=-1) / 127).clamp_min(1e-12).bfloat16()
    numbers = (groups / scales.float()[..., None]).round().clamp(-128, 127).to(torch.int32).flatten(1) + 128
    upper = (numbers // 16, 16 * scales, torch.zeros_like(scales))
    lower = (numbers % 16, scales, 8 * scales)
    return _by_groups([upper, lower], weight, bias)


def _by_groups(parts: list[Grouped], weight: Tensor, bias: Tensor | None) -> tuple[Product, int]:
    """The product with the sum of `parts`."""
    numbers, scales, middles = (torch.cat([part[at] for part in parts], 1) for at in range(3))
    packed = torch._convert_weight_to_int4pack_for_cpu(numbers, 1)
    both = torch.stack((scales, middles), dim=-1).transpose(0, 1).contiguous()
    multiply = torch._weight_int4pack_mm_for_cpu
    own, (outputs, inputs) = weight.dtype, weight.shape
    halves = len(parts) == 2

    def run(x: Tensor) -> Tensor:
        rows = x.reshape(-1, inputs).bfloat16()
        y = multiply(torch.cat((rows, rows), 1) if halves else rows, packed, GROUP, both)
        y = (y.float() if own == torch.float32 else y.to(own)).view(*x.shape[:-1], outputs)
        return y if bias is None else y + bias

    return run, packed.nbytes + both.nbytes


def fits(weight: Tensor) -> bool:
    """Whether PyTorch has the product by groups for such a matrix."""
    return weight.shape[1] % GROUP == 0 and weight.shape[0] % 16 == 0


def four_bits(weight: Tensor) -> Grouped:
    """The nearest that 4 bits come to `weight`."""
    groups = _groups(weight)
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    scales = ((high - low) / 15).clamp_min(1e-12).bfloat16()
    middles = (low + 8 * scales.float()).bfloat16()
    numbers = ((groups - middles.float()[..., None]) / scales.float()[..., None]).round() + 8
    return numbers.clamp(0, 15).to(torch.int32).flatten(1), scales, middles


def loss(grouped: Grouped, weight: Tensor) -> float:
    """How far the rounded weights are from `weight`: the length of the difference over that of the weight."""
    numbers, scales, middles = grouped
    again = torch.addcmul(middles.float()[..., None], _groups(numbers) - 8, scales.float()[..., None]).flatten(1)
    exact = weight.detach().float()
    return float((again - exact).norm() / exact.norm().clamp_min(1e-12))


def _groups(weight: Tensor) -> Tensor:
    return weight.detach().float().view(len(weight), -1, GROUP)
