"""Keys and values of 8 bits: whole numbers, with one scale for each key and each value.

A number is `code * scale`, with codes from -127 to 127; the scale is the greatest magnitude of the entry's channels
over 127, rounded to bfloat16. Rounded to the nearest, that moves 127 steps by less than half a step, so the greatest
code is 127 whatever the entry; and a product of a code and a scale is exact in float32. Hence numbers that were read
have the same codes and the same scale when they are written again: what is moved, kept or sent elsewhere is rounded
once, when the model computes it.

A number is off by at most half a scale: `BOUND` of the greatest magnitude among its entry's channels.
"""

from __future__ import annotations

import torch

CODES, SCALES = torch.int8, torch.bfloat16
MOST = 127
"""The greatest code."""
LEAST = 1e-30
"""The least scale: an entry of smaller numbers is zero."""
BOUND = 0.5 / MOST * (1 + 2**-8)
"""Of the greatest magnitude of an entry: how far a number can be from what is stored of it."""


def coded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes `[.., channels]` and scales `[.., 1]` of `x [.., channels]`. An entry with what is not a number, or not
    finite, is read as one without any number."""
    wide = x.float()
    scales = (wide.abs().amax(-1, keepdim=True) / MOST).clamp_min(LEAST).to(SCALES)
    codes = wide.div(scales).round_().nan_to_num_(0, MOST, -MOST).clamp_(-MOST, MOST)
    return codes.to(CODES), scales


def numbers(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The numbers of `codes [.., channels]`, in float32."""
    return codes.float().mul_(scales)
