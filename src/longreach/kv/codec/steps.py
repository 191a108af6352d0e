"""Rows of numbers as whole steps from a middle, each row with a step and a middle of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.codec import entropy
from longreach.kv.codec.frame import CodecError

PARTS = 2 + entropy.PARTS
"""How many arrays `pack` makes."""
_MIDDLES = 4
_FINEST = 2.0**-16
_LEAST, _GREATEST = -240, 252


@dataclass(frozen=True, eq=False)
class Stepped:
    """`x[row, i] ≈ (middles[row] / 4 + whole[row, i]) * 2 ** (codes[row] / 2)`.

    `whole [rows, n]` int32, `codes [rows]` int16, `middles [rows]` int32.
    """

    whole: NDArray[np.int32]
    codes: NDArray[np.int16]
    middles: NDArray[np.int32]


def quantise(rows: torch.Tensor, steps: torch.Tensor) -> Stepped:
    """`rows [rows, n]` float32 in steps near `steps [rows]`: the power of the square root of two that is nearest, and
    not so fine that a number would be more than 2**16 of them. An element is off by at most half a step."""
    floor = rows.abs().amax(1).double() * _FINEST
    wanted = torch.maximum(steps.double(), floor).clamp_min(2.0 ** (_LEAST / 2)).log2() * 2
    codes = torch.maximum(wanted.round(), floor.clamp_min(2.0 ** (_LEAST / 2)).log2().mul(2).ceil())
    short = codes.clamp(_LEAST, _GREATEST).numpy().astype(np.int16)
    sizes = torch.from_numpy(sizes_of(short))
    # One division for all of a row would round twice; float64 keeps what float32 tells apart.
    middles = (rows.double().mean(1) / sizes * _MIDDLES).round()
    whole = (rows / sizes.float()[:, None] - (middles / _MIDDLES).float()[:, None]).round_()
    return Stepped(whole.int().numpy(), short, middles.int().numpy())


def restore(stepped: Stepped) -> torch.Tensor:
    """The rows `[rows, n]`, float32."""
    rows = torch.from_numpy(stepped.whole).float()
    rows += torch.from_numpy(stepped.middles)[:, None].float() / _MIDDLES
    rows *= torch.from_numpy(sizes_of(stepped.codes)).float()[:, None]
    return rows


def sizes_of(codes: NDArray[np.int16]) -> NDArray[np.float64]:
    """The steps `[rows]`. By shifts of the exponent alone: the same on every machine."""
    halves = codes.astype(np.int32)
    return np.ldexp(np.where(halves % 2, 1.4142135623730951, 1.0), halves // 2)


def pack(stepped: Stepped) -> list[NDArray[Any]]:
    """As arrays of which `unpack` makes the same integers."""
    return [entropy.squeeze(stepped.codes), entropy.squeeze(stepped.middles), *entropy.encode(stepped.whole)]


def unpack(arrays: Sequence[NDArray[Any]], rows: int, n: int) -> Stepped:
    """What `pack` was given. Raises CodecError where the arrays do not fit together."""
    if len(arrays) != PARTS:
        raise CodecError("this encoded KV is damaged: parts of it are missing")
    codes = entropy.unsqueeze(arrays[0], np.int16, rows)
    middles = entropy.unsqueeze(arrays[1], np.int32, rows)
    return Stepped(entropy.decode(arrays[2:], rows, n), codes, middles)
