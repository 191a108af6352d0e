"""What all encoded KV begins with: who wrote it, what is in it, and whether it is whole.

    magic "LRKV" | version | length of the head | XXH3 of all that follows | head (JSON) | arrays, one after the other

The head holds the name of the method, its fields, and dtype and shape of each array. Numbers are little-endian.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from longreach.errors import LongreachError

MAGIC = b"LRKV"
VERSION = 2
_START = struct.Struct("<4sHIQ")
_KINDS = {"|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f2", "<f4", "<f8"}


class CodecError(LongreachError):
    """Encoded KV that cannot be read: damaged, cut short, or of another method or version. Compute it again."""


@dataclass(frozen=True)
class Frame:
    """`method` wrote `arrays`; `fields` are JSON values that it reads them by."""

    method: str
    fields: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]]


def write(frame: Frame) -> bytes:
    """The bytes of `frame`."""
    arrays = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for array in frame.arrays]
    assert {array.dtype.str for array in arrays} <= _KINDS
    kinds = [[array.dtype.str, list(array.shape)] for array in arrays]
    head = json.dumps([frame.method, dict(frame.fields), kinds], separators=(",", ":")).encode()
    parts = [array.reshape(-1).view(np.uint8).data for array in arrays]
    checksum = xxhash.xxh3_64(head)
    for part in parts:
        checksum.update(part)
    return b"".join([_START.pack(MAGIC, VERSION, len(head), checksum.intdigest()), head, *parts])


def read(data: bytes, method: str | None = None) -> Frame:
    """What `write` was given; the arrays are views of `data`. Raises CodecError for anything else, also where another
    than `method` wrote it."""
    if len(data) < _START.size or data[:4] != MAGIC:
        raise CodecError("this is no encoded KV: it does not begin as such")
    _, version, length, checksum = _START.unpack_from(data)
    if version != VERSION:
        raise CodecError(f"this KV was encoded in version {version} of the format and only {VERSION} is known here")
    if xxhash.xxh3_64_intdigest(memoryview(data)[_START.size :]) != checksum:
        raise CodecError("this encoded KV is damaged: its checksum does not fit")
    at = _START.size + length
    try:
        name, fields, kinds = json.loads(data[_START.size : at])
        arrays = []
        for kind, shape in kinds:
            count = math.prod(shape)
            if kind not in _KINDS or count < 0:
                raise ValueError(kind)
            arrays.append(np.frombuffer(data, np.dtype(kind), count, at).reshape(shape))
            at += arrays[-1].nbytes
        frame = Frame(str(name), dict(fields), arrays)
    except (ValueError, TypeError, UnicodeDecodeError):
        raise CodecError("this encoded KV is damaged: its head does not fit what follows") from None
    if at != len(data):
        raise CodecError(f"this encoded KV is damaged: {len(data) - at} bytes are left over")
    if method is not None and frame.method != method:
        raise CodecError(f"this KV was encoded by {frame.method!r} and cannot be read by {method!r}")
    return frame
