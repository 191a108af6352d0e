"""Keys and values of 4 bits: whole numbers, two to a byte, with one scale for each key and each value.

Keys have a few channels that are much greater than the others, in every token: with one scale, little would be left of
these. So coded is what `hadamard.spread` makes of an entry. A spread number is `code * scale`, with codes from -8 to 7;
the scale is the spread number of the greatest magnitude, with its sign, over -8, rounded to bfloat16. Then the code of
that number is -8 whatever the entry, so that numbers that were read have the same codes and the same scale when they
are written again, as with 8 bits.

A spread number is off by at most half a scale, or by a whole one where it is as great as the greatest and of the other
sign: by `BOUND` of the greatest magnitude among its entry's spread channels.
"""

from __future__ import annotations

import torch

from longreach.kv.hadamard import spread
from longreach.kv.int8 import LEAST, SCALES

CODES = torch.uint8
"""Two codes to a byte, which is `16 * second + first + 8` as a number with a sign: of a channel of the first half, and
of the same of the second half. So the lower bits say the first, the upper ones the second."""
LOWEST, HIGHEST = -8, 7
"""The codes."""
BOUND = 1 / 8 + 2**-8
"""Of the greatest spread magnitude of an entry: how far a spread number can be from what is stored of it."""


def coded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes `[.., channels / 2]` and scales `[.., 1]` of `x [.., channels]`, of which there is an even number. An entry
    with what is not a number, or not finite, is read as one without any number."""
    wide = spread(x.float())
    low, high = wide.amin(-1, keepdim=True), wide.amax(-1, keepdim=True)
    scales = torch.where(high >= -low, high, low).div_(LOWEST)
    scales = scales.where(scales.abs() >= LEAST, scales.isnan() * scales + LEAST).to(SCALES)
    codes = wide.div(scales).round_().nan_to_num_(0, HIGHEST, LOWEST).clamp_(LOWEST, HIGHEST).to(torch.int8)
    first, second = codes.chunk(2, -1)
    return (16 * second + (first + 8)).view(CODES), scales


def numbers(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The numbers `[.., channels]` of `codes [.., channels / 2]`, in float32."""
    pairs = codes.view(torch.int8)
    return spread(torch.cat([(pairs & 15) - 8, pairs >> 4], -1).float().mul_(scales))
