"""What an entry is found by."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """The `tokens` of a chunk, read under the class `prefix` ("": alone) by one model; `digest` (32 hexadecimal digits)
    names all three. Keys are equal only where their tokens are: a digest that two chunks share does no harm."""

    digest: str
    prefix: str
    tokens: tuple[int, ...]

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def of(cls, fingerprint: str, tokens: Sequence[int], prefix: str = "") -> Key:
        """The key of `tokens` for the model `fingerprint`."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (encoded(fingerprint), encoded(prefix), packed(tokens)):
            digest.update(len(part).to_bytes(8, "little") + part)
        return cls(digest.hexdigest(), prefix, tuple(tokens))


def encoded(text: str) -> bytes:
    """Any text as bytes, unpaired surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def packed(tokens: Sequence[int]) -> bytes:
    """Token ids as 32-bit little-endian integers."""
    numbers = array("i", tokens)
    assert numbers.itemsize == 4
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
