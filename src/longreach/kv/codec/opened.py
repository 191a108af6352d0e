"""Encoded KV that was found whole, before it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from longreach.kv.codec.rows import Shape

Both: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys and values."""


@dataclass(frozen=True, eq=False)
class Opened:
    """Of keys and values of these `shapes`, `layers(low, end)` decodes those of the layers `low .. end - 1`; any thread
    may, and as often as it likes."""

    shapes: tuple[Shape, Shape]
    layers: Callable[[int, int], Both]

    @classmethod
    def of(cls, keys: torch.Tensor, values: torch.Tensor) -> Opened:
        """What could only be decoded all at once, and was."""
        return cls((_shape(keys), _shape(values)), lambda low, end: (keys[low:end], values[low:end]))

    def whole(self) -> Both:
        """All layers."""
        return self.layers(0, self.shapes[0][0])


def _shape(x: torch.Tensor) -> Shape:
    layers, heads, tokens, channels = x.shape
    return layers, heads, tokens, channels
