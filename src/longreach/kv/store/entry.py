"""The KV of a chunk, and what turns it into bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from longreach.errors import InputError

if TYPE_CHECKING:
    import torch

    from longreach.kv.codec.opened import Opened


@dataclass(frozen=True, eq=False)
class Entry:
    """`keys`, `values [layers, kv_heads, tokens, head_dim]` of a chunk; keys are turned for the positions `first` and
    following. `seconds` is what it took to compute them. `outward [tokens]` (float32, on the processor) is how much of
    its attention each token gave to filler before the chunk, where that was noted (`longreach.kv.reuse.StoredTokens`).
    Raises InputError where `seconds` is no number of seconds."""

    keys: torch.Tensor
    values: torch.Tensor
    first: int = 0
    seconds: float = 0.0
    outward: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < float("inf"):
            raise InputError(f"seconds={self.seconds}: computing takes 0 or more seconds")

    @property
    def kv(self) -> Opened:
        """Both as what was encoded is seen."""
        from longreach.kv.codec.opened import Opened

        return Opened.of(self.keys, self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return int(self.keys.nbytes + self.values.nbytes)


class Coder(Protocol):
    """Keys and values as bytes and back; `start` is where the first key was computed. `open` raises an exception for
    bytes that `encode` did not make. Both are called from several threads."""

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes: ...

    def open(self, data: bytes) -> Opened: ...


class Codec(Coder, Protocol):
    """A coder that says what it is: `spec` names the method with its options, and what another spec wrote is never
    given to it."""

    @property
    def spec(self) -> str: ...


@dataclass(frozen=True)
class Named:
    """A coder under the spec that it was made from."""

    spec: str
    coder: Coder

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        return self.coder.encode(keys, values, start)

    def open(self, data: bytes) -> Opened:
        return self.coder.open(data)
