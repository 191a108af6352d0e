"""Group quantisation: neighbours share a smallest value and a step, each is stored as a small integer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.errors import SpecError
from longreach.kv.codec.codec import KVShape, check, check_finite
from longreach.kv.codec.fields import about, dtype_of, narrow, shapes_of
from longreach.kv.codec.frame import CodecError, Frame, read, write

Floats = NDArray[np.floating[Any]]
_SMALLEST, _LARGEST = 2.0**-14, 32768.0
"""Between these a half-precision number keeps its 11 bits."""
_MOST = float(np.finfo(np.float32).max)


@dataclass
class Grouped:
    """Integers of `bits` (8 or 4) in groups of `group`: keys per channel, a group being neighbouring tokens, values per
    token, a group being neighbouring channels (KIVI, Liu et al. 2024, arXiv 2402.02750).

    In each group `x ≈ low + step * integer`, `step = (high - low) / (2**bits - 1)`; low and step are of half precision
    where they fit, else of single, low rounded down and step up. An element is off by at most half a step (and the
    rounding of the dtype). The last group may be shorter. Keys are best grouped turned as they are: their channels
    have outliers that tokens do not.
    """

    group: int
    name: str
    bits: int

    def __post_init__(self) -> None:
        if self.group < 2:
            raise SpecError(f"{self.name}: group={self.group} is too small: at least 2")

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        check_finite(keys, values)
        sides = [keys.transpose(2, 3), values]
        parts = [part for side in sides for part in self._side(side.detach().cpu().float().numpy())]
        return write(Frame(self.name, {**about(keys, values), "group": self.group}, parts))

    def decode(self, data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        frame = read(data, self.name)
        dtype = dtype_of(frame)
        try:
            group, (first, second) = int(frame.fields["group"]), shapes_of(frame)
            turned = (first[0], first[1], first[3], first[2])
            low, step, packed, other_low, other_step, other_packed = frame.arrays
            keys = _join(low, step, unpack(packed, self.bits, turned), group)
            values = _join(other_low, other_step, unpack(other_packed, self.bits, second), group)
        except (KeyError, ValueError, TypeError):
            raise CodecError(f"this KV of {self.name!r} is damaged: its parts do not fit together") from None
        return narrow(torch.from_numpy(keys).transpose(2, 3).contiguous(), dtype), narrow(
            torch.from_numpy(values), dtype
        )

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        keys = shape.head_dim * (self.bits / 8 + 4 * -(-tokens // self.group) / tokens)
        values = shape.value_dim * self.bits / 8 + 4 * -(-shape.value_dim // self.group)
        return shape.layers * shape.kv_heads * (keys + values)

    def _side(self, x: Floats) -> list[NDArray[Any]]:
        """Low, step and packed integers of `x [..., n]`, grouped along its last dimension."""
        starts = np.arange(0, x.shape[-1], self.group)
        low, high = np.minimum.reduceat(x, starts, -1), np.maximum.reduceat(x, starts, -1)
        low, step = scales(low, high, 2**self.bits - 1)
        wide_low, wide_step = _spread(low, self.group, x.shape[-1]), _spread(step, self.group, x.shape[-1])
        whole = np.rint((x.astype(np.float64) - wide_low) / np.where(wide_step > 0, wide_step, 1))
        return [low, step, pack(whole.clip(0, 2**self.bits - 1).astype(np.uint8), self.bits)]


def scales(low: Floats, high: Floats, levels: int) -> tuple[Floats, Floats]:
    """`low` rounded down and a step rounded up, so that `low + levels * step >= high`, as short as precision allows."""
    largest = float(max(np.abs(low).max(), np.abs(high).max()))
    short = _SMALLEST * levels <= largest <= _LARGEST or largest == 0
    kind: Any = np.float16 if short else np.float32
    down: Floats = low.astype(kind)
    with np.errstate(over="ignore"):  # past the greatest number, which is not chosen
        down = np.where(down > low, np.nextafter(down, kind(-np.inf)), down)
        exact = (high.astype(np.float64) - down) / levels
        up: Floats = exact.astype(kind)
        return down, np.where(up < exact, np.nextafter(up, kind(np.inf)), up)


def pack(whole: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Integers below `2**bits` as bytes, two to a byte where `bits` is 4."""
    flat = whole.reshape(-1)
    if bits == 8:
        return flat
    even = np.append(flat, np.uint8(0)) if flat.size % 2 else flat
    pairs: NDArray[np.uint8] = even[0::2] | even[1::2] << np.uint8(4)
    return pairs


def unpack(packed: NDArray[Any], bits: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    """What `pack` was given. Raises ValueError where it was of another shape."""
    flat = packed if bits == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(-1)
    count = int(np.prod(shape))
    if flat.size - count not in (0, 8 // bits - 1):
        raise ValueError("not as many integers as the shape has")
    return flat[:count].reshape(shape)


def _join(low: NDArray[Any], step: NDArray[Any], whole: NDArray[np.uint8], group: int) -> Floats:
    # Of half precision: then no sum leaves the range of single precision on the way.
    kind = np.float32 if step.dtype == np.float16 else np.float64
    n = whole.shape[-1]
    joined = whole * _spread(step.astype(kind), group, n)
    joined += _spread(low.astype(kind), group, n)
    return joined.clip(-_MOST, _MOST).astype(np.float32) if kind is np.float64 else joined


def _spread(scale: Floats, group: int, n: int) -> Floats:
    """One of `scale [..., groups]` for each of `n` elements."""
    return scale.repeat(group, -1)[..., :n]
