"""The KV cache of the loop: one buffer a layer, written in place, and what is kept of past prompts.

Imported only where a model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class BufferLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values `[1, kv_heads, length, head_dim]` at the start of a larger buffer.

    Transformers' own layer copies all of it at every token; this one copies only when the buffer is full.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity = capacity
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append `[1, kv_heads, new, head_dim]` and give all there is. Overrides transformers', hence its signature."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._capacity:
            self._grow(end, key_states, value_states)
        assert self._buffers is not None
        keys, values = self._buffers
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def fork(self, length: int, capacity: int) -> BufferLayer:
        """A layer of its own that begins with a copy of the first `length` entries."""
        twin = BufferLayer(capacity)
        assert self._buffers is not None
        keys, values = self._buffers
        twin.update(keys[:, :, :length], values[:, :, :length])
        return twin

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers or ())

    def _grow(self, needed: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Make room for `needed` entries like those of `keys` and `values`."""
        filled, old = self.get_seq_length(), self._buffers
        if old is not None:
            needed = max(needed, self._capacity * 3 // 2)
        self._capacity = max(needed, self._capacity)
        new_keys, new_values = (x.new_empty((*x.shape[:2], self._capacity, x.shape[3])) for x in (keys, values))
        if old is not None:
            new_keys[:, :, :filled] = old[0][:, :, :filled]
            new_values[:, :, :filled] = old[1][:, :, :filled]
        self._buffers = (new_keys, new_values)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True


def only_full_attention(config: Any) -> bool:
    """Whether every layer attends to all that came before and keeps it: then the cache of a prefix is a prefix of the
    cache."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def bytes_of(cache: Cache) -> int:
    """What the cache takes, unused room at the end of its buffers included."""
    found = 0
    for layer in cache.layers:
        tensors = (getattr(layer, "keys", None), getattr(layer, "values", None))
        found += layer.nbytes if isinstance(layer, BufferLayer) else sum(x.nbytes for x in tensors if x is not None)
    return found


@dataclass(eq=False, slots=True)
class Kept:
    """Tokens, and a cache that begins with their KV. Only the run that made it appends to it; others copy its start."""

    tokens: list[int]
    cache: Any

    def fork(self, length: int, capacity: int) -> Cache:
        """A cache of its own with the KV of the first `length` tokens and room for `capacity`."""
        return Cache(layers=[layer.fork(length, capacity) for layer in self.cache.layers])


class PastPrompts:
    """The KV of the prompts read last, up to `limit` bytes; the one unused for longest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[Kept] = []  # the one used last stands last

    def longest(self, tokens: Sequence[int]) -> tuple[Kept, int] | None:
        """Whoever shares most tokens with the beginning of `tokens`, and how many; None where nobody shares any."""
        best = max(self._kept, key=lambda kept: common(kept.tokens, tokens), default=None)
        shared = common(best.tokens, tokens) if best else 0
        if best is None or shared == 0:
            return None
        self._kept.remove(best)
        self._kept.append(best)
        return best, shared

    def put(self, kept: Kept) -> None:
        """Keep it, in place of those that it continues; let go of what no longer fits."""
        self._kept = [old for old in self._kept if common(old.tokens, kept.tokens) < len(old.tokens)]
        self._kept.append(kept)
        self.trim()

    def trim(self) -> None:
        """Let go of the oldest until the rest fits: caches grow while their answers are written."""
        while self._kept and self.bytes > self._limit:
            del self._kept[0]

    @property
    def bytes(self) -> int:
        return sum(bytes_of(kept.cache) for kept in self._kept)


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    for at, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return at
    return min(len(left), len(right))
