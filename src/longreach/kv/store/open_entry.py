"""An entry that was found and is not decoded yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from longreach.kv.store.entry import Codec, Entry
from longreach.kv.store.format import Encoded
from longreach.kv.store.key import Key

if TYPE_CHECKING:
    import torch

    from longreach.kv.codec.opened import Opened

Tier: TypeAlias = Literal["host", "disk"]


@dataclass(frozen=True, eq=False)
class OpenEntry:
    """An `Entry` whose bytes are in memory and whole; `kv` decodes them. `tier` had it, and it `took` so many seconds
    to have it from there."""

    kv: Opened
    first: int
    seconds: float
    outward: torch.Tensor | None
    tier: Tier = "disk"
    took: float = 0.0

    def entry(self) -> Entry:
        """All of it, decoded."""
        keys, values = self.kv.whole()
        return Entry(keys, values, self.first, self.seconds, self.outward)


def open_entry(codec: Codec, key: Key, found: Encoded) -> OpenEntry | None:
    """What was found for `key`; None where the codec cannot read it. Raises MemoryError."""
    try:
        kv = codec.open(found.payload)
    except MemoryError:
        raise
    except Exception:
        return None
    first, second = kv.shapes
    if first[2] != len(key.tokens) or second[:3] != first[:3]:
        return None
    return OpenEntry(kv, found.first, found.seconds, _numbers(found.outward))


def decode_entry(codec: Codec, key: Key, found: Encoded) -> Entry | None:
    """As `open_entry`, decoded."""
    opened = open_entry(codec, key, found)
    try:
        return None if opened is None else opened.entry()
    except MemoryError:
        raise
    except Exception:
        return None


def _numbers(noted: bytes) -> torch.Tensor | None:
    """What was noted for each token, if it was."""
    import numpy as np
    import torch

    return torch.from_numpy(np.frombuffer(noted, "<f4").astype(np.float32)) if noted else None
