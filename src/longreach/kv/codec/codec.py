"""The contract of KV codecs: keys and values to bytes and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from longreach.attention.rotation import Rotation
from longreach.errors import InputError, SpecError
from longreach.kv.codec.frame import CodecError, read
from longreach.kv.codec.ladder_fit import Ladder
from longreach.kv.codec.opened import Both, Opened
from longreach.kv.codec.rates import Rates
from longreach.kv.codec.sensitivity import Sensitivity
from longreach.registry import Family


class KVShape(Protocol):
    """What the estimate of a size needs to know of a model; `longreach.model.bridge.Shapes` has it."""

    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int


class Codec(Protocol):
    """Writes the KV of a run of tokens as bytes that say themselves how they are to be read.

    Keys are `[layers, kv_heads, tokens, head_dim]`, values alike, with a last dimension of their own; both of one
    floating dtype, which is given back. What is written may lie on any device. What is read is on the CPU, unless the
    codec was made for another device and says so, and is the same whichever arguments the codec that reads was made
    with.
    """

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        """`start` is the position at which the first key was computed.

        Raises InputError for shapes that do not fit, and, where it quantises, for NaN and infinity.
        """
        ...

    def decode(self, data: bytes) -> Both:
        """Keys and values. Raises CodecError for bytes that are damaged or of another method or version."""
        ...

    def open(self, data: bytes) -> Opened:
        """The same, to be decoded some layers at a time: what is damaged is found out now. What can only be decoded
        all at once is, now."""
        ...

    def bytes_per_token(self, shape: KVShape, dtype: torch.dtype, tokens: int = 256) -> float:
        """About what a token takes in a run of `tokens`: exact for raw and fixed widths but for the header. What is
        entropy coded takes about as much as it did where that was measured."""
        ...


codecs: Family[Codec] = Family("codecs", "longreach.kv.codec")


def make(
    spec: str,
    *,
    rotations: Sequence[Rotation] = (),
    sensitivity: Sensitivity | None = None,
    ladder: Ladder | None = None,
    rates: Rates | None = None,
    device: torch.device | str = "cpu",
) -> Codec:
    """The codec that `spec` names, for a model whose layers turn keys by `rotations` and which wants what is read on
    `device`, where the codec can do that. Raises SpecError."""
    return codecs.make(
        spec, rotations=rotations, sensitivity=sensitivity, ladder=ladder, rates=rates or {}, device=device
    )


def decode(data: bytes, *, ladder: Ladder | None = None) -> Both:
    """Keys and values that any codec wrote; what `ladder` wrote needs the one it was written by. Raises CodecError."""
    return open_any(data, ladder=ladder).whole()


def open_any(data: bytes, *, ladder: Ladder | None = None) -> Opened:
    """As `decode`, to be decoded some layers at a time: see `Codec.open`."""
    method = read(data).method
    try:
        codec = make(method, ladder=ladder)
    except SpecError:
        raise CodecError(f"this KV was encoded by {method!r}, which is no codec that is known here") from None
    return codec.open(data)


def check(keys: torch.Tensor, values: torch.Tensor) -> None:
    """InputError unless `keys` and `values` are what a codec takes."""
    if keys.dim() != 4 or values.dim() != 4 or keys.shape[:3] != values.shape[:3] or keys.dtype != values.dtype:
        raise InputError(
            f"keys {tuple(keys.shape)} {keys.dtype} and values {tuple(values.shape)} {values.dtype} do not belong "
            "together: both are [layers, kv_heads, tokens, channels] of one dtype"
        )
    if not keys.dtype.is_floating_point or keys.dtype.itemsize not in (2, 4, 8) or min(*keys.shape, *values.shape) < 1:
        raise InputError(f"KV of {keys.dtype} {tuple(keys.shape)}, {tuple(values.shape)} cannot be encoded")


def check_finite(keys: torch.Tensor, values: torch.Tensor) -> None:
    """InputError where a number is none; codecs that quantise ask for it."""
    if not (bool(keys.float().isfinite().all()) and bool(values.float().isfinite().all())):
        raise InputError("KV with NaN or infinity cannot be quantised: encode it with the codec 'raw', or not at all")
