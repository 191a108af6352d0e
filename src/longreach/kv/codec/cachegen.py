"""`cachegen`: the differences of tokens to the first of their group, coarser in deeper layers, entropy coded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.errors import SpecError
from longreach.kv.codec import entropy
from longreach.kv.codec.codec import KVShape, check, check_finite, codecs
from longreach.kv.codec.fields import about, check_level, dtype_of, narrow, shapes_of
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.opened import Both, Opened
from longreach.kv.codec.rows import Shape, from_rows, to_rows

BINS = (0.5, 1.0, 1.5)
"""Steps of the first, middle and last third of the layers, in standard deviations of the layer's differences."""
LEVELS = (0.25, 0.35, 0.5, 0.71, 1.0)
"""What the bins are multiplied with; the paper's default is 1.0."""
_ANCHOR = 127


@codecs.register("cachegen")
@dataclass
class CacheGen:
    """Tokens in groups of `group`: the first, the anchor, in 8 bits with a scale for each token and layer, the others
    as differences to it in steps that grow with the layer (Liu et al. 2023, arXiv 2310.07240).

    Integers are coded with a table for each layer and channel. The paper fits these to the model beforehand; here
    each text picks them out of a fixed family, so that what is read needs no model. An anchor is off by at most half of
    1/127 of its largest channel, another token by at most half a step of its layer (and the rounding of the dtype).
    `level` 0 (finest) to 4, the paper's default.
    """

    level: int = 2
    group: int = 10

    def __post_init__(self) -> None:
        check_level("cachegen", self.level, len(LEVELS))
        if self.group < 1:
            raise SpecError(f"cachegen: group={self.group} is too small: at least 1")

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        check_finite(keys, values)
        parts = [part for x in (keys, values) for part in pack(quantise(x, self.group, LEVELS[self.level]))]
        return write(Frame("cachegen", {**about(keys, values), "group": self.group}, parts))

    def open(self, data: bytes) -> Opened:
        return Opened.of(*self.decode(data))

    def decode(self, data: bytes) -> Both:
        frame = read(data, "cachegen")
        dtype = dtype_of(frame)
        try:
            group = int(frame.fields["group"])
            sides = [
                restore(unpack(frame.arrays[at : at + _PARTS], shape, group), shape, group)
                for at, shape in zip((0, _PARTS), shapes_of(frame), strict=True)
            ]
        except (KeyError, ValueError, TypeError, IndexError, ZeroDivisionError, RuntimeError):
            raise CodecError("this KV of 'cachegen' is damaged: its parts do not fit together") from None
        return narrow(sides[0], dtype), narrow(sides[1], dtype)

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        bits = 2.1 - math.log2(LEVELS[self.level]) + 6 / tokens + 5 / self.group
        return shape.layers * (shape.kv_heads * (shape.head_dim + shape.value_dim) * bits / 8 + 8 / self.group)


@dataclass(frozen=True, eq=False)
class Grouped:
    """One side: `anchors [rows, groups]` int32 in steps of `scales [layers, groups]`, `differences [rows, tokens]`
    int32 (0 at anchors) in steps of `steps [layers]`; a row is a channel of a head of a layer."""

    anchors: NDArray[np.int32]
    scales: NDArray[np.float32]
    differences: NDArray[np.int32]
    steps: NDArray[np.float32]


_PARTS = 2 + 2 * entropy.PARTS


def quantise(x: torch.Tensor, group: int, level: float) -> Grouped:
    """`x [layers, kv_heads, tokens, channels]` as integers."""
    layers, tokens = x.shape[0], x.shape[2]
    rows = to_rows(x)
    first = rows[:, ::group].view(layers, -1, -(-tokens // group))
    scales = first.abs().amax(1) / _ANCHOR
    anchors = (first.double() / scales.double().clamp_min(1e-45)[:, None]).round().clamp(-_ANCHOR, _ANCHOR)
    base = (anchors * scales.double()[:, None]).view(len(rows), -1).repeat_interleave(group, 1)[:, :tokens]
    apart = (rows.double() - base).view(layers, -1, tokens)
    apart[:, :, ::group] = 0
    spread = apart.square().mean((1, 2)).sqrt()
    bins = torch.tensor([BINS[min(3 * layer // layers, 2)] for layer in range(layers)], dtype=torch.float64)
    steps = (spread * bins * level).clamp(1e-37, 3e38).float()
    differences = (apart / steps.double()[:, None, None]).round()
    whole = [part.reshape(len(rows), -1).int().numpy() for part in (anchors, differences)]
    return Grouped(whole[0], scales.numpy(), whole[1], steps.numpy())


def restore(quantised: Grouped, shape: Shape, group: int) -> torch.Tensor:
    """`[layers, kv_heads, tokens, channels]`, float32."""
    layers, _, tokens, _ = shape
    anchors = torch.from_numpy(quantised.anchors).view(layers, -1, quantised.anchors.shape[1]).float()
    base = (anchors * torch.from_numpy(quantised.scales)[:, None]).repeat_interleave(group, 2)[:, :, :tokens]
    differences = torch.from_numpy(quantised.differences).view(layers, -1, tokens).float()
    rows = torch.addcmul(base, differences, torch.from_numpy(quantised.steps)[:, None, None])
    return from_rows(rows.view(-1, tokens), shape)


def pack(quantised: Grouped) -> list[NDArray[Any]]:
    """As arrays of which `unpack` makes the same integers."""
    coded = [*entropy.encode(quantised.anchors), *entropy.encode(quantised.differences)]
    return [quantised.scales, quantised.steps, *coded]


def unpack(arrays: Sequence[NDArray[Any]], shape: Shape, group: int) -> Grouped:
    """What `pack` was given. Raises CodecError or ValueError where the arrays do not fit together."""
    layers, heads, tokens, channels = shape
    rows, groups = layers * heads * channels, -(-tokens // group)
    if len(arrays) != _PARTS or arrays[0].shape != (layers, groups) or arrays[1].shape != (layers,):
        raise ValueError("the scales do not fit the shape")
    anchors = entropy.decode(arrays[2 : 2 + entropy.PARTS], rows, groups)
    differences = entropy.decode(arrays[2 + entropy.PARTS :], rows, tokens)
    return Grouped(anchors, np.array(arrays[0], np.float32), differences, np.array(arrays[1], np.float32))
