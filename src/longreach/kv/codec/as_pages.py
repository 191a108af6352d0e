"""What pages of few bits hold, written as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.codec.codec import KVShape, check, check_finite
from longreach.kv.codec.fields import about, dtype_of, narrow, shapes_of
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.opened import Both, Opened
from longreach.kv.coding import entry_bytes, numbers_of, parts_of, width_of
from longreach.kv.int8 import SCALES
from longreach.kv.paged import paged, place_of


@dataclass
class AsPages:
    """Whole numbers stored as `kept`, and 16 bits for each token's key and value in a layer and KV head: see
    `longreach.kv.coding`. What lies in such pages loses nothing."""

    name: str
    kept: torch.dtype

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        check(keys, values)
        check_finite(keys, values)
        stored = parts_of(keys.detach(), values.detach(), self.kept)
        return write(Frame(self.name, about(keys, values), [_array(part.cpu()) for part in stored]))

    def decode(self, data: bytes) -> Both:
        return self.open(data).whole()

    def open(self, data: bytes) -> Opened:
        frame = read(data, self.name)
        dtype, kinds = dtype_of(frame), (self.kept, self.kept, SCALES, SCALES)
        try:
            shapes = shapes_of(frame)
            if [part.shape for part in frame.arrays] != self._shapes(shapes):
                raise ValueError("other shapes than were written")
            if [part.dtype.itemsize for part in frame.arrays] != [kind.itemsize for kind in kinds]:
                raise ValueError("not as many bits as was written")
        except (KeyError, ValueError, TypeError):
            raise CodecError(f"this KV of {self.name!r} is damaged: its parts do not fit together") from None

        def layers(low: int, end: int) -> Both:
            pairs = zip(frame.arrays, kinds, strict=True)
            keys, values = numbers_of([_tensor(part[low:end], kind) for part, kind in pairs])
            return narrow(keys, dtype), narrow(values, dtype)

        def straight(low: int, end: int, stored: tuple[torch.Tensor, ...], pages: NDArray[np.int32]) -> bool:
            if dtype != torch.float32 or [part.dtype for part in stored] != list(kinds):  # not as such pages give them
                return False
            where, size = place_of(pages, stored[0].device), stored[0].shape[1]
            for to, part, kind in zip(stored, frame.arrays, kinds, strict=True):
                to[where] = paged(_tensor(part[low:end], kind), size).to(to.device)
            return True

        return Opened(shapes, layers, straight)

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        return shape.layers * shape.kv_heads * entry_bytes(shape.head_dim, shape.value_dim, self.kept)

    def _shapes(self, sides: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Of both codes and both scales, where keys and values have these."""
        codes = [(*side[:-1], width_of(side[-1], self.kept)) for side in sides]
        return [*codes, *((*side[:-1], 1) for side in sides)]


def _array(part: torch.Tensor) -> NDArray[Any]:
    part = part.contiguous()
    return part.view(torch.int16).numpy().view(np.uint16) if part.dtype == SCALES else part.numpy()


def _tensor(part: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(part.copy()).view(dtype)
