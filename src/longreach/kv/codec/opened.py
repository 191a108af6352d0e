"""Encoded KV that was found whole, before it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.codec.rows import Shape

Both: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys and values."""


Straight: TypeAlias = Callable[[int, int, tuple[torch.Tensor, ...], NDArray[np.int32]], bool]
"""See `Opened`."""


@dataclass(frozen=True, eq=False)
class Opened:
    """Of keys and values of these `shapes`, `layers(low, end)` decodes those of the layers `low .. end - 1`; any thread
    may, and as often as it likes.

    `straight(low, end, stored, pages)`, where there is one, decodes the same into `pages [layers, kv_heads, columns]`
    of what a pool has `stored`, in less time; it returns False, and writes nothing, where it cannot for these."""

    shapes: tuple[Shape, Shape]
    layers: Callable[[int, int], Both]
    straight: Straight | None = None

    @classmethod
    def of(cls, keys: torch.Tensor, values: torch.Tensor) -> Opened:
        """What could only be decoded all at once, and was."""
        return cls((_shape(keys), _shape(values)), lambda low, end: (keys[low:end], values[low:end]))

    def decoded(self, low: int = 0, end: int | None = None) -> Opened:
        """The same, with the layers `low .. end - 1` (all) decoded and no others to be had, unless decoding is better
        left to whoever has the pages."""
        if self.straight is not None:
            return self
        keys, values = self.layers(low, self.shapes[0][0] if end is None else end)
        return Opened(
            self.shapes, lambda first, last: (keys[first - low : last - low], values[first - low : last - low])
        )

    def whole(self) -> Both:
        """All layers."""
        return self.layers(0, self.shapes[0][0])


def _shape(x: torch.Tensor) -> Shape:
    layers, heads, tokens, channels = x.shape
    return layers, heads, tokens, channels
