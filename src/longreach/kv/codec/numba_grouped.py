"""Integers of 8 bits in groups, from the bytes of `longreach.kv.codec.grouped` into pages at once, on a processor.

PyTorch takes an operation a group for that, each through memory, and a copy into pages behind them. The numbers are the
same to the bit. Importing this imports Numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import float32, int32, int64, njit, types, uint16, void
from numpy.typing import NDArray

from longreach.attention.numba_tools import byte, read, write

LIKE = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0)}
"""What stands for a number in pages, by their dtype."""
_SIGNATURES = [
    void(types.UniTuple(int64, 4), int32[:, ::1], types.UniTuple(int64, 5), like) for like in (float32, uint16)
]
# No liberties with the order of operations: a number is that which PyTorch gives.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "cache": True, "nogil": True}

Parts = Sequence[NDArray[Any]]
"""Low and step (float16) of each group of some layers `[layers, kv_heads, .., groups]`, and all their integers."""


def can_put(stored: Sequence[torch.Tensor], dtype: torch.dtype) -> bool:
    """Whether the kernels write to what a pool has `stored`, and give what is decoded as `dtype`."""
    alike = all(part.dtype == dtype and part.device.type == "cpu" for part in stored)
    return len(stored) == 2 and dtype in LIKE and alike


def put_keys(parts: Parts, tokens: int, group: int, memory: torch.Tensor, pages: NDArray[np.int32]) -> None:
    """Write keys whose neighbouring tokens are a group, lows and steps `[layers, kv_heads, dim, groups]`, into `pages
    [layers, kv_heads, columns]` of `memory [pages, page_size, dim]`."""
    lows, steps, packed = parts
    scales = lows.swapaxes(2, 3), steps.swapaxes(2, 3)
    _run(_keys, packed, scales, (tokens, *memory.shape[1:], lows.shape[3], group), memory, pages)


def put_values(parts: Parts, tokens: int, group: int, memory: torch.Tensor, pages: NDArray[np.int32]) -> None:
    """As `put_keys` for values, whose neighbouring channels are a group: lows and steps `[layers, kv_heads, tokens,
    groups]`."""
    lows, steps, packed = parts
    _run(_values, packed, (lows, steps), (tokens, *memory.shape[1:], lows.shape[3], group), memory, pages)


def _run(
    kernel: Any,
    packed: NDArray[np.uint8],
    scales: tuple[NDArray[Any], NDArray[Any]],
    sizes: tuple[int, ...],
    memory: torch.Tensor,
    pages: NDArray[np.int32],
) -> None:
    lows, steps = (np.ascontiguousarray(each, np.float32) for each in scales)
    table = np.ascontiguousarray(pages.reshape(-1, pages.shape[-1]))
    addresses = (packed.ctypes.data, lows.ctypes.data, steps.ctypes.data, memory.data_ptr())
    kernel(addresses, table, sizes, LIKE[memory.dtype])


@njit(_SIGNATURES, **_OPTIONS)
def _keys(addresses: Any, table: Any, sizes: Any, like: Any) -> None:
    packed, lows, steps, memory = addresses
    tokens, size, dim, groups, group = sizes
    room = np.empty((size, dim), np.float32)
    for stream in range(len(table)):
        for column in range(table.shape[1]):
            first, to = column * size, np.int64(table[stream, column]) * size * dim
            count = min(size, tokens - first)
            for channel in range(dim):
                at = (stream * dim + channel) * tokens + first
                for token in range(count):
                    room[token, channel] = byte(packed, at + token)
            for token in range(count):
                line = (stream * groups + (first + token) // group) * dim
                for channel in range(dim):
                    low, step = read(lows, line + channel, np.float32(0)), read(steps, line + channel, np.float32(0))
                    write(memory, to + token * dim + channel, room[token, channel] * step + low, like)


@njit(_SIGNATURES, **_OPTIONS)
def _values(addresses: Any, table: Any, sizes: Any, like: Any) -> None:
    packed, lows, steps, memory = addresses
    tokens, size, dim, groups, group = sizes
    for stream in range(len(table)):
        for column in range(table.shape[1]):
            first, to = column * size, np.int64(table[stream, column]) * size * dim
            for token in range(min(size, tokens - first)):
                line = stream * tokens + first + token
                for some in range(groups):
                    low = read(lows, line * groups + some, np.float32(0))
                    step = read(steps, line * groups + some, np.float32(0))
                    for channel in range(some * group, min(some * group + group, dim)):
                        number = byte(packed, line * dim + channel) * step + low
                        write(memory, to + token * dim + channel, number, like)
