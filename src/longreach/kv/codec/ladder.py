"""`ladder`: each layer forecast from the one below, the rest coded on the axes where it is uncorrelated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.rotation import Rotation
from longreach.errors import InputError
from longreach.kv.codec import entropy
from longreach.kv.codec.codec import KVShape, check, check_finite, codecs
from longreach.kv.codec.fields import about, check_level, dtype_of, narrow, shapes_of, turns_in, turns_out
from longreach.kv.codec.fisher import LEVELS
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.ladder_fit import Ladder as Fitted
from longreach.kv.codec.ladder_fit import stack
from longreach.kv.codec.opened import Both, Opened
from longreach.kv.codec.rates import Rates, bits_of
from longreach.kv.codec.rows import Shape, from_rows
from longreach.kv.codec.upright import turn_back, turn_forth
from longreach.registry import resource

BITS = (1.33, 1.02, 0.78, 0.58, 0.41)
"""A number takes about so many at each level: passages of the embedded model, with a ladder fitted to others."""
BESIDE = 2.4
"""Bits that a row takes beside its numbers, for its table."""
_MOST = 2.0**24


@codecs.register("ladder")
@dataclass
class Ladder:
    """As `fisher`, with what the model's KV has in common taken out first: a linear forecast of each layer from the one
    below as it was written (differential coding), and a rotation to the principal axes of what is left, where channels
    are uncorrelated (Karhunen-Loève).

    `ladder` is fitted to the model (`longreach.kv.codec.ladder_fit`), and what is written can be read with the same one
    only. The length of a token's error in a layer, in steps of that layer, is at most `sqrt(n) / 2` times the level's
    factor, and the few per cent by which axes of 6 bits are off.
    """

    level: int = 2
    rotations: Sequence[Rotation] = resource()
    ladder: Fitted | None = resource()
    rates: Rates = resource()

    def __post_init__(self) -> None:
        check_level("ladder", self.level, len(LEVELS))

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        check_finite(keys, values)
        if self.ladder is None:
            raise InputError("the codec 'ladder' needs one that is fitted to the model: fit it, or use 'fisher'")
        rows = stack(turn_back(keys.detach().cpu().float(), self.rotations, start), values)
        if rows.shape[:2] != self.ladder.steps.shape:
            raise InputError(
                f"the ladder is fitted to {tuple(self.ladder.steps.shape)}, not to {tuple(rows.shape[:2])}"
            )
        factor = LEVELS[self.level]
        whole = climb_down(rows, self.ladder, factor)
        turns, frequencies = turns_out(self.rotations)
        fields = {**about(keys, values), **turns, "ladder": self.ladder.id, "factor": factor, "start": start}
        return write(Frame("ladder", fields, [*entropy.encode(whole), *frequencies]))

    def open(self, data: bytes) -> Opened:
        return Opened.of(*self.decode(data))

    def decode(self, data: bytes) -> Both:
        frame = read(data, "ladder")
        dtype = dtype_of(frame)
        if self.ladder is None or frame.fields.get("ladder") != self.ladder.id:
            raise CodecError("this KV was encoded with a ladder that is not at hand: compute it again")
        try:
            first, second = shapes_of(frame)
            layers, heads, tokens, _ = first
            whole = entropy.decode(frame.arrays[: entropy.PARTS], layers * heads * (first[3] + second[3]), tokens)
            rows = climb_up(whole, self.ladder, float(frame.fields["factor"]))
            keys, values = _apart(rows, first, second)
            keys = turn_forth(keys, turns_in(frame, frame.arrays[entropy.PARTS :]), int(frame.fields["start"]))
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError, InputError):
            raise CodecError("this KV of 'ladder' is damaged: its parts do not fit together") from None
        return narrow(keys, dtype), narrow(values, dtype)

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        bits = bits_of(self.rates, "ladder", self.level, BITS) + BESIDE / tokens
        return shape.layers * shape.kv_heads * (shape.head_dim + shape.value_dim) * bits / 8


def climb_down(rows: torch.Tensor, ladder: Fitted, factor: float) -> NDArray[np.int32]:
    """`rows [layers, n, tokens]` as whole steps `[layers * n, tokens]`, each layer behind its forecast."""
    whole = torch.empty(rows.shape, dtype=torch.int32)
    read_back: torch.Tensor | None = None
    for layer, row in enumerate(rows):
        forecast = _forecast(ladder, layer, read_back)
        units = (row - ladder.means[layer][:, None]) / (ladder.steps[layer] * factor)[:, None]
        steps = (ladder.onto_axes[layer] @ (units - forecast)).clamp(-_MOST, _MOST).round()
        read_back = forecast + ladder.axes.of(layer) @ steps
        whole[layer] = steps.int()
    return whole.reshape(-1, rows.shape[2]).numpy()


def climb_up(whole: NDArray[np.int32], ladder: Fitted, factor: float) -> torch.Tensor:
    """The rows `[layers, n, tokens]` behind what `climb_down` made."""
    steps = torch.from_numpy(whole).view(*ladder.steps.shape, -1).float()
    rows = torch.empty_like(steps)
    read_back: torch.Tensor | None = None
    for layer in range(len(steps)):
        read_back = _forecast(ladder, layer, read_back) + ladder.axes.of(layer) @ steps[layer]
        rows[layer] = read_back * (ladder.steps[layer] * factor)[:, None] + ladder.means[layer][:, None]
    return rows


def _forecast(ladder: Fitted, layer: int, below: torch.Tensor | None) -> torch.Tensor:
    return torch.zeros(1) if below is None else ladder.rungs.of(layer) @ below


def _apart(rows: torch.Tensor, first: Shape, second: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of `rows [layers, n, tokens]`."""
    cut = first[1] * first[3]
    sides = rows[:, :cut].contiguous(), rows[:, cut:].contiguous()
    return from_rows(sides[0], first), from_rows(sides[1], second)
