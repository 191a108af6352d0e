"""`fisher`: each channel as fine as the answers need it, coded as briefly as its spread allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from longreach.attention.rotation import Rotation
from longreach.errors import InputError
from longreach.kv.codec.codec import KVShape, check, check_finite, codecs
from longreach.kv.codec.fields import about, check_level, dtype_of, narrow, shapes_of, turns_in, turns_out
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.opened import Both, Opened
from longreach.kv.codec.rates import Rates, bits_of
from longreach.kv.codec.rows import from_rows, to_rows
from longreach.kv.codec.sensitivity import Sensitivity
from longreach.kv.codec.steps import PARTS, pack, quantise, restore, unpack
from longreach.kv.codec.upright import turn_back, turn_forth
from longreach.registry import resource

LEVELS = (0.5, 0.71, 1.0, 1.41, 2.0)
"""What the steps are multiplied with."""
BITS = (2.15, 1.73, 1.35, 1.01, 0.72)
"""A number takes about so many at each level: passages of the embedded model, sensitivity as measured on others."""
BESIDE = 10.5
"""Bits that a row takes beside its numbers, for its step, its middle and its table."""
_EVEN_BITS, _EVEN_BESIDE = (3.06, 2.59, 2.13, 1.69, 1.26), 16
"""The same without any sensitivity."""
_LOSS = 2.6e-4
_SHARE = 0.8


@codecs.register("fisher")
@dataclass
class Fisher:
    """Uniform steps for each channel, keys turned back, the channel's mean taken off, entropy coded.

    The loss of a token, `sum(weight * step**2) / 24`, is least for its size where `step = c / sqrt(weight)`; `weight`
    is the Fisher information of the answers in that channel (`sensitivity`). Steps are rounded to powers of the square
    root of two and stored, so that reading needs nothing but the data. An element of the values is off by at most half
    its channel's step, a pair of the keys by half of the diagonal of both steps (and the rounding of the dtype). With
    each `level`, 0 to 4, c grows by about 1.41 and the loss doubles.

    Without `sensitivity` all keys have one step and all values another, in proportion to how much they vary.
    `rotations`, one a layer, say how keys are turned; without them they are coded as they stand.
    """

    level: int = 2
    rotations: Sequence[Rotation] = resource()
    sensitivity: Sensitivity | None = resource()
    rates: Rates = resource()

    def __post_init__(self) -> None:
        check_level("fisher", self.level, len(LEVELS))

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        check_finite(keys, values)
        upright = turn_back(keys.detach().cpu().float(), self.rotations, start)
        parts: list[NDArray[Any]] = []
        for x, weights in zip((upright, values), self._weights(keys, values), strict=True):
            rows = to_rows(x)
            parts += pack(quantise(rows, self._steps(rows, weights)))
        turns, frequencies = turns_out(self.rotations)
        return write(Frame("fisher", {**about(keys, values), **turns, "start": start}, [*parts, *frequencies]))

    def open(self, data: bytes) -> Opened:
        return Opened.of(*self.decode(data))

    def decode(self, data: bytes) -> Both:
        frame = read(data, "fisher")
        dtype = dtype_of(frame)
        try:
            sides = []
            for at, shape in zip((0, PARTS), shapes_of(frame), strict=True):
                rows = unpack(frame.arrays[at : at + PARTS], shape[0] * shape[1] * shape[3], shape[2])
                sides.append(from_rows(restore(rows), shape))
            keys = turn_forth(sides[0], turns_in(frame, frame.arrays[2 * PARTS :]), int(frame.fields["start"]))
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError, InputError):
            raise CodecError("this KV of 'fisher' is damaged: its parts do not fit together") from None
        return narrow(keys, dtype), narrow(sides[1], dtype)

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        if self.sensitivity is None:
            bits = _EVEN_BITS[self.level] + _EVEN_BESIDE / tokens
        else:
            bits = bits_of(self.rates, "fisher", self.level, BITS) + BESIDE / tokens
        return shape.layers * shape.kv_heads * (shape.head_dim + shape.value_dim) * bits / 8

    def _weights(self, keys: torch.Tensor, values: torch.Tensor) -> list[torch.Tensor | None]:
        known = self.sensitivity
        if known is None:
            return [None, None]
        for x, weights in ((keys, known.keys), (values, known.values)):
            if tuple(weights.shape) != (*x.shape[:2], x.shape[3]):
                raise InputError(f"a sensitivity of shape {tuple(weights.shape)} is not that of KV {tuple(x.shape)}")
        return [known.keys, known.values]

    def _steps(self, rows: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """`[rows]`"""
        if weights is None:
            even = _SHARE * float(rows.double().std(1, correction=0).mean())
            return torch.full((len(rows),), even * LEVELS[self.level])
        return _LOSS * LEVELS[self.level] / weights.reshape(-1).float().clamp_min(1e-20).sqrt()
