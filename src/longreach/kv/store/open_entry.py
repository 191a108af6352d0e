"""An entry that was found and is not decoded yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from longreach.kv.store.entry import Codec, Entry
from longreach.kv.store.format import Encoded
from longreach.kv.store.key import Key

if TYPE_CHECKING:
    import torch

    from longreach.kv.codec.opened import Opened

T = TypeVar("T")
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

    def ready(self) -> OpenEntry:
        """The same, decoded unless whoever has the pages does that better."""
        return replace(self, kv=self.kv.decoded())

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


def ready_entry(codec: Codec, key: Key, found: Encoded) -> OpenEntry | None:
    """As `open_entry`, and `ready`."""
    return _decoded(open_entry(codec, key, found), OpenEntry.ready)


def decode_entry(codec: Codec, key: Key, found: Encoded) -> Entry | None:
    """As `open_entry`, decoded."""
    return _decoded(open_entry(codec, key, found), OpenEntry.entry)


def _decoded(opened: OpenEntry | None, decode: Callable[[OpenEntry], T]) -> T | None:
    try:
        return None if opened is None else decode(opened)
    except MemoryError:
        raise
    except Exception:
        return None


def _numbers(noted: bytes) -> torch.Tensor | None:
    """What was noted for each token, if it was."""
    import numpy as np
    import torch

    return torch.from_numpy(np.frombuffer(noted, "<f4").astype(np.float32)) if noted else None
