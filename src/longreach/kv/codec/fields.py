"""What the heads of several codecs say: the dtype, the shapes, how keys were turned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.rotation import Rotation
from longreach.errors import SpecError
from longreach.kv.codec.frame import CodecError, Frame
from longreach.kv.codec.rows import Shape

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def about(keys: torch.Tensor, values: torch.Tensor) -> dict[str, Any]:
    """The fields "dtype" and "shapes"."""
    return {"dtype": str(keys.dtype).removeprefix("torch."), "shapes": [list(keys.shape), list(values.shape)]}


def dtype_of(frame: Frame) -> torch.dtype:
    """The dtype that `about` wrote. Raises CodecError."""
    name = frame.fields.get("dtype")
    if name not in _DTYPES:
        raise CodecError(f"this encoded KV is of the dtype {name!r}, which is not known here")
    return _DTYPES[name]


def shapes_of(frame: Frame) -> tuple[Shape, Shape]:
    """The shapes of keys and values that `about` wrote. Raises ValueError, KeyError or TypeError."""
    first, second = (tuple(int(n) for n in shape) for shape in frame.fields["shapes"])
    if len(first) != 4 or len(second) != 4 or min(*first, *second) < 1:
        raise ValueError("no shapes of KV")
    return (first[0], first[1], first[2], first[3]), (second[0], second[1], second[2], second[3])


def turns_out(rotations: Sequence[Rotation]) -> tuple[dict[str, Any], list[NDArray[np.float64]]]:
    """How keys are turned, as a field and arrays: each way once, and for each layer which way is its own."""
    ways: list[Rotation] = []
    layers = []
    for rotation in rotations:
        known = (at for at, way in enumerate(ways) if _same(way, rotation))
        at = next(known, len(ways))
        if at == len(ways):
            ways.append(rotation)
        layers.append(at)
    frequencies = [way.frequencies.double().cpu().numpy() for way in ways]
    return {"turns": layers, "interleaved": [way.interleaved for way in ways]}, frequencies


def turns_in(frame: Frame, frequencies: Sequence[NDArray[Any]]) -> list[Rotation]:
    """What `turns_out` was given. Raises ValueError, KeyError, TypeError or IndexError."""
    pairs = zip(frequencies, frame.fields["interleaved"], strict=True)
    ways = [Rotation(torch.from_numpy(np.array(one, np.float64)), bool(interleaved)) for one, interleaved in pairs]
    return [ways[at] for at in frame.fields["turns"]]


def narrow(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`x` as `dtype`; what a rounding carried past its range is its largest number."""
    most = min(torch.finfo(dtype).max, torch.finfo(x.dtype).max)
    return x.nan_to_num_(nan=0.0, posinf=most, neginf=-most).clamp_(-most, most).to(dtype)


def check_level(method: str, level: int, levels: int) -> None:
    """Raises SpecError for a level that is not there."""
    if not 0 <= level < levels:
        raise SpecError(f"{method}: level={level} is not there: 0 (finest) to {levels - 1}")


def _same(one: Rotation, other: Rotation) -> bool:
    return one.interleaved == other.interleaved and torch.equal(one.frequencies, other.frequencies)
