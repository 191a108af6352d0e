"""Entropy coding of small integers: rows of them, each with the table, out of a fixed family, that suits it best.

The coder is constriction's ANS (Bamler 2022, arXiv 2201.01741). Of its tables each row says which in one byte, so a
row of a hundred integers needs no table of its own. They are made by multiplications and divisions alone, which give
the same bits on every machine: a table that was off by one would read nonsense.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longreach.kv.codec.frame import CodecError

Integers = NDArray[np.int32]
PARTS = 5
"""How many arrays `encode` makes."""
REACH = 127
"""The largest absolute value that a table holds; what lies further out is listed apart."""
_SCALES, _FIRST, _RATIO = 34, 0.0015, 1.35


@lru_cache(maxsize=1)
def tables() -> NDArray[np.float64]:
    """Probabilities `[tables, 2 * REACH + 1]` of the integers from `-REACH` on: half of the tables fall off by a
    factor with each integer (Laplace), half with its square (Gauss)."""
    rows = []
    scale = _FIRST
    for _ in range(_SCALES):
        for factor, square in ((scale / (1 + scale), False), (2 * scale * scale / (1 + 2 * scale * scale), True)):
            tail, step = [1.0], factor
            for _ in range(REACH):
                tail.append(tail[-1] * step)
                step = step * factor * factor if square else factor
            rows.append([*tail[:0:-1], *tail])
        scale *= _RATIO
    weights = np.array(rows) + 2.0**-30
    return weights / np.cumsum(weights, 1)[:, -1:]


def encode(rows: Integers) -> list[NDArray[Any]]:
    """`rows [rows, n]` as `PARTS` arrays, of which `decode` makes the same integers."""
    clipped = rows.clip(-REACH, REACH)
    which = _best(clipped)
    outside = np.flatnonzero(rows != clipped)  # the least integer has no absolute value
    coder = _coder(None)
    order, counts = _by_table(which)
    sorted_rows = clipped[order]
    for table, start, stop in reversed(counts):
        coder.encode_reverse((sorted_rows[start:stop] + REACH).reshape(-1).astype(np.int32), _model(table))
    words = coder.get_compressed()
    shape = np.array(rows.shape, np.uint32)
    return [shape, squeeze(which), words, outside.astype(np.uint32), rows.reshape(-1)[outside]]


def decode(arrays: Sequence[NDArray[Any]], count: int, n: int) -> Integers:
    """The integers `[count, n]` behind what `encode` wrote. Raises CodecError where the arrays do not fit together."""
    shape, squeezed, words, outside, beyond = arrays
    if shape.tolist() != [count, n]:
        raise CodecError("this encoded KV is damaged: it does not hold as many integers as its shape says")
    which = unsqueeze(squeezed, np.uint8, count)
    if (
        len(outside) != len(beyond)
        or (len(outside) and int(outside.max()) >= count * n)
        or (which >= len(tables())).any()
    ):
        raise CodecError("this encoded KV is damaged: its integers do not fit its tables")
    coder = _coder(np.ascontiguousarray(words, np.uint32))
    order, counts = _by_table(which)
    rows = np.empty((count, n), np.int32)
    for table, start, stop in counts:
        found = coder.decode(_model(table), (stop - start) * n)
        rows[order[start:stop]] = found.reshape(stop - start, n)
    if not coder.is_empty():
        raise CodecError("this encoded KV is damaged: its integers do not end where they should")
    rows -= REACH
    rows.reshape(-1)[outside] = beyond
    return rows


def squeeze(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers that repeat themselves, in fewer bytes: each byte of theirs in a plane of its own."""
    planes = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).reshape(numbers.size, -1).T
    return np.frombuffer(zlib.compress(planes.tobytes(), 9), np.uint8)


def unsqueeze(squeezed: NDArray[Any], kind: type[np.generic], count: int) -> NDArray[Any]:
    """`count` numbers of `kind` that `squeeze` was given. Raises CodecError where there are not as many."""
    size = np.dtype(kind).itemsize
    try:
        planes = zlib.decompress(squeezed.tobytes())
    except zlib.error:
        planes = b""
    if len(planes) != count * size:
        raise CodecError("this encoded KV is damaged: a list of numbers in it is not as long as it should be")
    return np.frombuffer(planes, np.uint8).reshape(size, count).T.copy().view(kind).reshape(count)


def _best(rows: Integers) -> NDArray[np.uint8]:
    """For each of `rows` the table that needs the fewest bits."""
    best: NDArray[np.uint8] = _costs(rows).argmin(1).astype(np.uint8)
    return best


def _costs(rows: Integers) -> NDArray[np.float32]:
    """Bits `[rows, tables]`."""
    reach = int(np.abs(rows).max(initial=0))
    width = 2 * reach + 1
    cells = (rows + reach).astype(np.int64) + np.arange(len(rows))[:, None] * width
    counts = np.bincount(cells.reshape(-1), minlength=len(rows) * width).reshape(len(rows), width)
    price = -np.log2(tables()[:, REACH - reach : REACH + reach + 1]).astype(np.float32)
    costs: NDArray[np.float32] = counts.astype(np.float32) @ price.T
    return costs


def _by_table(which: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
    """Rows in the order of their tables, and for each table that is used where its rows begin and end there."""
    order = np.argsort(which, kind="stable")
    used, starts = np.unique(which[order], return_index=True)
    stops = [*starts[1:].tolist(), len(which)]
    return order, list(zip(used.tolist(), starts.tolist(), stops, strict=True))


def _coder(words: NDArray[np.uint32] | None) -> Any:
    import constriction

    try:
        return constriction.stream.stack.AnsCoder(words)
    except ValueError:
        raise CodecError("this encoded KV is damaged: its coded part ends with a zero") from None


def _model(table: int) -> Any:
    import constriction

    return constriction.stream.model.Categorical(tables()[table], perfect=False)
