"""`raw`: bytes as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.codec.codec import KVShape, check, codecs
from longreach.kv.codec.fields import about, dtype_of, shapes_of
from longreach.kv.codec.frame import CodecError, Frame, read, write


@codecs.register("raw")
@dataclass
class Raw:
    """Keys and values bit by bit: what every other codec is compared with."""

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        return write(Frame("raw", about(keys, values), [_bytes(keys), _bytes(values)]))

    def decode(self, data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        frame = read(data, "raw")
        dtype = dtype_of(frame)
        try:
            (first, second), (one, other) = shapes_of(frame), frame.arrays
            keys, values = (torch.from_numpy(part.copy()).view(dtype) for part in (one, other))
            return keys.view(first), values.view(second)
        except (KeyError, ValueError, TypeError, RuntimeError):
            raise CodecError("this KV of 'raw' is damaged: its parts do not fit together") from None

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        return shape.layers * shape.kv_heads * (shape.head_dim + shape.value_dim) * dtype.itemsize


def _bytes(x: torch.Tensor) -> NDArray[np.uint8]:
    """`[layers, kv_heads, tokens, bytes]`."""
    return x.detach().cpu().contiguous().view(torch.uint8).numpy()
