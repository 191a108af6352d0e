"""`raw`: bytes as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.codec.codec import KVShape, check, codecs
from longreach.kv.codec.fields import about, dtype_of, shapes_of
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.opened import Both, Opened


@codecs.register("raw")
@dataclass
class Raw:
    """Keys and values bit by bit: what every other codec is compared with."""

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        return write(Frame("raw", about(keys, values), [_bytes(keys), _bytes(values)]))

    def decode(self, data: bytes) -> Both:
        return self.open(data).whole()

    def open(self, data: bytes) -> Opened:
        frame = read(data, "raw")
        dtype = dtype_of(frame)
        try:
            shapes, (one, other) = shapes_of(frame), frame.arrays
            for part, shape in zip((one, other), shapes, strict=True):
                if part.dtype != np.uint8 or part.shape != (*shape[:3], shape[3] * dtype.itemsize):
                    raise ValueError("other shapes than were written")
        except (KeyError, ValueError, TypeError):
            raise CodecError("this KV of 'raw' is damaged: its parts do not fit together") from None
        return Opened(shapes, lambda low, end: (_numbers(one[low:end], dtype), _numbers(other[low:end], dtype)))

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        return shape.layers * shape.kv_heads * (shape.head_dim + shape.value_dim) * dtype.itemsize


def _numbers(part: NDArray[np.uint8], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(part.copy()).view(dtype)


def _bytes(x: torch.Tensor) -> NDArray[np.uint8]:
    """`[layers, kv_heads, tokens, bytes]`."""
    return x.detach().cpu().contiguous().view(torch.uint8).numpy()
