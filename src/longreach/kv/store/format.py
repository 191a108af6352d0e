"""A file of the store: a header, then what the codec made.

| bytes | what |
|---|---|
| 8 | magic |
| 2 + 2 | version, and nothing |
| 4 + 8 | usage: hits and age (`ranking.Worth`), rewritten in place; all that the checksum leaves out but itself |
| 16 | XXH3 (128 bits) of everything after it |
| 8 + 8 + 8 | first position, seconds of computing, bytes of the payload |
| 4 + 2 + 2 + 4 | tokens; bytes of fingerprint, codec's spec and prefix class |
| … | fingerprint, spec, prefix class, token ids of 4 bytes, `outward` or nothing, payload |

All numbers are little-endian. `outward` is a float32 for each token (see `Entry`); the length of the file tells whether
it is there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from longreach.kv.store.key import Key, encoded, packed
from longreach.kv.store.ranking import Worth

MAGIC, VERSION = b"\x93LRKV\r\n\x1a", 1
SUFFIX = f".kv{VERSION}"
_START, _USAGE, _SUM = struct.Struct("<8sHH"), struct.Struct("<Id"), struct.Struct("16s")
_BODY = struct.Struct("<qdQIHHI")
USAGE_AT = _START.size
_SUM_AT = USAGE_AT + _USAGE.size
_BODY_AT = _SUM_AT + _SUM.size
HEADER = _BODY_AT + _BODY.size
"""Bytes that `worth` needs."""


class DamagedError(Exception):
    """The file is not what was written."""


class ForeignError(Exception):
    """The file is sound, or may be, and not meant for us: another version, model, codec or chunk."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An entry as bytes of a codec; `first` and `seconds` as in `Entry`, `outward` as float32, empty where it was not
    noted."""

    payload: bytes
    first: int
    seconds: float
    outward: bytes = b""


@dataclass(frozen=True, slots=True)
class Label:
    """Whose file it is: the model's fingerprint and the spec of the codec."""

    fingerprint: str
    codec: str


def head(key: Key, entry: Encoded, label: Label, hits: int, age: float) -> bytes:
    """What stands before the payload."""
    names = [encoded(text) for text in (label.fingerprint, label.codec, key.prefix)]
    body = _BODY.pack(entry.first, entry.seconds, len(entry.payload), len(key.tokens), *(len(name) for name in names))
    summed = b"".join((body, *names, packed(key.tokens), entry.outward))
    checksum = xxhash.xxh3_128(summed)
    checksum.update(entry.payload)
    return _START.pack(MAGIC, VERSION, 0) + usage(hits, age) + checksum.digest() + summed


def usage(hits: int, age: float) -> bytes:
    """The part of the header at `USAGE_AT` that changes."""
    return _USAGE.pack(min(hits, 2**32 - 1), age)


def worth(start: bytes, size: int) -> Worth:
    """The worth of a file of `size` bytes that begins with `start`; none, so that it goes before others, where it
    cannot be read."""
    if len(start) < HEADER or _START.unpack_from(start)[:2] != (MAGIC, VERSION):
        return Worth(size, 0.0, 0)
    hits, age = _USAGE.unpack_from(start, USAGE_AT)
    seconds = _BODY.unpack_from(start, _BODY_AT)[1]
    sound = 0 <= age < float("inf") and 0 <= seconds < float("inf")
    return Worth(size, seconds, hits, age) if sound else Worth(size, 0.0, 0)


def parse(data: memoryview, key: Key, label: Label) -> Encoded:
    """The entry in the file `data`. Raises DamagedError, and ForeignError for one that is not `key`'s under `label`."""
    if len(data) < _START.size or data[: len(MAGIC)] != MAGIC:
        raise DamagedError("it does not begin as an entry")
    if _START.unpack_from(data)[1] != VERSION:
        raise ForeignError("another version")
    if len(data) < HEADER:
        raise DamagedError("its header is cut off")
    first, seconds, payload, tokens, *names = _BODY.unpack_from(data, _BODY_AT)
    noted = len(data) - (HEADER + sum(names) + 4 * tokens + payload)
    if noted not in (0, 4 * tokens):
        raise DamagedError("its length is not what it says")
    if xxhash.xxh3_128_digest(data[_BODY_AT:]) != bytes(data[_SUM_AT:_BODY_AT]):
        raise DamagedError("its checksum is wrong")
    expected = b"".join((*map(encoded, (label.fingerprint, label.codec, key.prefix)), packed(key.tokens)))
    own = len(data) - payload
    if bytes(data[HEADER : own - noted]) != expected or tokens != len(key.tokens):
        raise ForeignError("another model, codec or chunk")
    return Encoded(bytes(data[own:]), first, seconds, bytes(data[own - noted : own]))
