"""`int8_pages`: integers of 8 bits with one scale for each key and each value, as pages of 8 bits have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv import int8
from longreach.kv.codec.codec import KVShape, check, check_finite, codecs
from longreach.kv.codec.fields import about, dtype_of, narrow, shapes_of
from longreach.kv.codec.frame import CodecError, Frame, read, write

NAME = "int8_pages"


@codecs.register(NAME)
@dataclass
class Int8Pages:
    """8 bits an element and 16 for each token's key and value in a layer and KV head: see `longreach.kv.int8`. What
    lies in pages of 8 bits loses nothing; of others an element is off by at most half a scale."""

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        check_finite(keys, values)
        stored = int8.parts_of(keys.detach(), values.detach(), int8.CODES)
        return write(Frame(NAME, about(keys, values), [_array(part.cpu()) for part in stored]))

    def decode(self, data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        frame = read(data, NAME)
        dtype = dtype_of(frame)
        try:
            stored = [_tensor(part, int8.CODES) for part in frame.arrays[:2]]
            stored += [_tensor(part, int8.SCALES) for part in frame.arrays[2:]]
            if [tuple(part.shape) for part in stored] != _shapes(shapes_of(frame)):
                raise ValueError("other shapes than were written")
            keys, values = int8.numbers_of(stored)
        except (KeyError, ValueError, TypeError, RuntimeError):
            raise CodecError(f"this KV of {NAME!r} is damaged: its parts do not fit together") from None
        return narrow(keys, dtype), narrow(values, dtype)

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        return shape.layers * shape.kv_heads * int8.entry_bytes(shape.head_dim, shape.value_dim, int8.CODES)


def _shapes(sides: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Of both codes and both scales, where keys and values have these."""
    return [*sides, *((*side[:-1], 1) for side in sides)]


def _array(part: torch.Tensor) -> NDArray[Any]:
    part = part.contiguous()
    return part.numpy() if part.dtype == int8.CODES else part.view(torch.int16).numpy().view(np.uint16)


def _tensor(part: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """Raises RuntimeError or TypeError where the array is of another width."""
    if part.dtype.itemsize != dtype.itemsize:
        raise ValueError("not as many bits as was written")
    return torch.from_numpy(part.copy()).view(dtype)
