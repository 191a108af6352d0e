"""Group quantisation: neighbours share a smallest value and a step, each is stored as a small integer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.errors import SpecError
from longreach.kv.codec.codec import KVShape, check, check_finite
from longreach.kv.codec.fields import about, dtype_of, narrow, shapes_of
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.opened import Both, Opened
from longreach.kv.codec.rows import Shape
from longreach.registry import resource

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
    have outliers that tokens do not. What is encoded may lie on any device; what is read lies on `device`.
    """

    group: int
    name: str
    bits: int
    device: torch.device | str = resource()

    def __post_init__(self) -> None:
        if self.group < 2:
            raise SpecError(f"{self.name}: group={self.group} is too small: at least 2")

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        check_finite(keys, values)
        parts = [part for side in (keys.transpose(2, 3), values) for part in self._side(side.detach())]
        return write(Frame(self.name, {**about(keys, values), "group": self.group}, parts))

    def decode(self, data: bytes) -> Both:
        return self.open(data).whole()

    def open(self, data: bytes) -> Opened:
        frame = read(data, self.name)
        dtype = dtype_of(frame)
        try:
            group, (first, second) = int(frame.fields["group"]), shapes_of(frame)
            turned = (first[0], first[1], first[3], first[2])
            ones, others = frame.arrays[:3], frame.arrays[3:]
            self._check(ones, turned, group)
            self._check(others, second, group)
        except (KeyError, ValueError, TypeError):
            raise CodecError(f"this KV of {self.name!r} is damaged: its parts do not fit together") from None

        def layers(low: int, end: int) -> Both:
            keys = self._joined(ones, turned, low, end, group, 2, dtype)
            return keys, self._joined(others, second, low, end, group, 3, dtype)

        def straight(low: int, end: int, stored: tuple[torch.Tensor, ...], pages: NDArray[np.int32]) -> bool:
            from longreach.kv.codec.numba_grouped import can_put, put_keys, put_values

            short = all(part.dtype == np.float16 for part in (*ones[:2], *others[:2]))
            if not (short and can_put(stored, dtype)):
                return False
            tokens = first[2]
            put_keys(_some(ones, turned, low, end), tokens, group, stored[0], pages)
            put_values(_some(others, second, low, end), tokens, group, stored[1], pages)
            return True

        quick = self.bits == 8 and torch.device(self.device).type == "cpu"
        return Opened((first, second), layers, straight if quick else None)

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        keys = shape.head_dim * (self.bits / 8 + 4 * -(-tokens // self.group) / tokens)
        values = shape.value_dim * self.bits / 8 + 4 * -(-shape.value_dim // self.group)
        return shape.layers * shape.kv_heads * (keys + values)

    def _side(self, x: torch.Tensor) -> list[NDArray[Any]]:
        """Low, step and packed integers of `x [..., n]`, grouped along its last dimension."""
        n = x.shape[-1]
        lacking = -n % self.group
        filled = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], lacking)], -1) if lacking else x
        groups = filled.float().reshape(*x.shape[:-1], -1, self.group)
        lowest, highest = groups.amin(-1), groups.amax(-1)
        low, step = scales(lowest.cpu().numpy(), highest.cpu().numpy(), 2**self.bits - 1)
        from_low = groups.double() - _wide(low, x.device)
        whole = from_low.div_(_wide(np.where(step > 0, step, 1), x.device)).round_().clamp_(0, 2**self.bits - 1)
        return [low, step, pack(whole.to(torch.uint8).flatten(-2)[..., :n], self.bits)]

    def _check(self, parts: Sequence[NDArray[Any]], shape: Shape, group: int) -> None:
        """Raises ValueError where the `parts` are not what `_side` makes of something of this `shape`."""
        lows, steps, packed = parts
        if lows.shape != steps.shape or lows.shape != (*shape[:3], -(-shape[3] // group)):
            raise ValueError("not as many groups as the shape has")
        if packed.dtype != np.uint8 or packed.shape != (-(-math.prod(shape) * self.bits // 8),):
            raise ValueError("not as many integers as the shape has")

    def _joined(
        self,
        parts: Sequence[NDArray[Any]],
        shape: Shape,
        first: int,
        end: int,
        group: int,
        dim: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """`low + step * integer` of the layers `first .. end - 1` of the `parts` that `_side` made of something of this
        `shape`, turned so that its last dimension is `dim`."""
        lows, steps = parts[0][first:end], parts[1][first:end]
        begin, stop = (layer * math.prod(shape[1:]) * self.bits for layer in (first, end))
        shape = (end - first, *shape[1:])
        within = 2 * _reach(lows, steps, 2**self.bits - 1) < torch.finfo(dtype).max
        low, step, packed = (self._there(part) for part in (lows, steps, parts[2][begin // 8 : -(-stop // 8)]))
        # Of half precision: then no sum leaves the range of single precision on the way.
        kind = torch.float32 if step.dtype == torch.float16 else torch.float64
        whole = unpack(packed, self.bits, shape, begin % 8 // self.bits)
        low, step, whole = (x.transpose(dim, 3).contiguous() for x in (low.to(kind), step.to(kind), whole))
        out = torch.empty(whole.shape, dtype=dtype, device=whole.device)
        # Group after group in the same memory: what was never used is slower to write to than its numbers to compute.
        room = torch.empty_like(out.narrow(dim, 0, min(group, shape[3])), dtype=kind)
        for at, some in enumerate(torch.split(whole, group, dim)):
            n = some.shape[dim]
            joined = torch.mul(some, step.narrow(dim, at, 1), out=room.narrow(dim, 0, n)).add_(low.narrow(dim, at, 1))
            if kind is torch.float64:
                joined = joined.clamp_(-_MOST, _MOST).float()
            out.narrow(dim, at * group, n).copy_(joined if within else narrow(joined, dtype))
        return out

    def _there(self, part: NDArray[Any]) -> torch.Tensor:
        """An array of a frame on the device."""
        _hush()
        there = torch.from_numpy(part)
        if torch.device(self.device).type == "cuda":
            there = there.pin_memory()  # copied twice that way, and several times as fast
        return there.to(self.device, non_blocking=True)


def _some(parts: Sequence[NDArray[Any]], shape: Shape, low: int, end: int) -> list[NDArray[Any]]:
    """Of the `parts` that 8 bits are kept in, those of some layers."""
    lows, steps, packed = parts
    return [lows[low:end], steps[low:end], packed[low * math.prod(shape[1:]) : end * math.prod(shape[1:])]]


def _wide(scale: Floats, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(scale.astype(np.float64)).to(device)[..., None]


@cache
def _hush() -> None:
    """PyTorch says, once, that bytes must not be written to: nobody does."""
    with warnings.catch_warnings(action="ignore"):
        torch.from_numpy(np.frombuffer(b"-", np.uint8))


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


def pack(whole: torch.Tensor, bits: int) -> NDArray[np.uint8]:
    """Integers (uint8) below `2**bits` as bytes in host memory, two to a byte where `bits` is 4."""
    flat = whole.reshape(-1)
    if bits == 4:
        even = torch.nn.functional.pad(flat, (0, flat.numel() % 2))
        flat = even[0::2] | even[1::2] << 4
    packed: NDArray[np.uint8] = flat.cpu().numpy()
    return packed


def unpack(packed: torch.Tensor, bits: int, shape: Sequence[int], skipped: int = 0) -> torch.Tensor:
    """What `pack` was given, of which so many integers come before those that are wanted. Raises ValueError where it
    was of another shape."""
    flat = packed.reshape(-1) if bits == 8 else torch.stack([packed & 15, packed >> 4], -1).reshape(-1)
    count = math.prod(shape)
    if flat.dtype != torch.uint8 or flat.numel() - skipped - count not in (0, 8 // bits - 1):
        raise ValueError("not as many integers as the shape has")
    return flat[skipped : skipped + count].view(shape)


def _reach(low: Floats, step: Floats, levels: int) -> float:
    """What no number of any group is larger than; not a number where one may be none."""
    return float(np.abs(low).max()) + levels * float(np.abs(step).max())
