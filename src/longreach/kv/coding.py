"""How keys and values are stored in pages: as numbers of a dtype, or as whole numbers of few bits beside scales."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from longreach.errors import UnsupportedError
from longreach.kv import int4, int8
from longreach.kv.int8 import SCALES


@dataclass(frozen=True)
class Coding:
    """Whole numbers of `bits`, stored as `codes`; `name` is what users call it. `code` gives the codes and the scales
    `[.., 1]` of what `numbers` makes float32 again."""

    name: str
    codes: torch.dtype
    bits: int
    code: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    numbers: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


CODINGS = {
    int8.CODES: Coding("int8", int8.CODES, 8, int8.coded, int8.numbers),
    int4.CODES: Coding("int4", int4.CODES, 4, int4.coded, int4.numbers),
}
"""By the dtype of what is stored, which stands for them wherever one says how keys and values are kept."""


def kept_as(name: str) -> torch.dtype:
    """What keys and values are stored as where a user asks for `name`: float32, bfloat16, float16, int8 or int4."""
    named = {coding.name: codes for codes, coding in CODINGS.items()}
    kept: torch.dtype = named[name] if name in named else getattr(torch, name)
    return kept


def name_of(kept: torch.dtype) -> str:
    """What a user calls `kept`."""
    return CODINGS[kept].name if kept in CODINGS else str(kept).removeprefix("torch.")


def parts_of(keys: torch.Tensor, values: torch.Tensor, kept: torch.dtype) -> tuple[torch.Tensor, ...]:
    """What is stored of keys and values `[.., channels]` that are kept as `kept`: themselves, to be rounded when they
    are copied, or both codes and both scales."""
    if kept not in CODINGS:
        return keys, values
    code = CODINGS[kept].code
    (keys, key_scales), (values, value_scales) = code(keys), code(values)
    return keys, values, key_scales, value_scales


def numbers_of(parts: Many[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys and values that are stored as `parts`: themselves where they are numbers, else new ones in float32."""
    keys, values, *scales = parts
    if not scales:
        return keys, values
    numbers = CODINGS[keys.dtype].numbers
    return numbers(keys, scales[0]), numbers(values, scales[1])


def width_of(channels: int, kept: torch.dtype) -> int:
    """How many numbers of `kept` the channels of an entry are stored in. Raises UnsupportedError for an odd number of
    them in 4 bits."""
    if kept not in CODINGS:
        return channels
    width, lacking = divmod(channels * CODINGS[kept].bits, 8 * kept.itemsize)
    if lacking:
        raise UnsupportedError(f"keys or values of {channels} channels cannot be kept two to a byte: choose int8")
    return width


def channels_of(stored: torch.Tensor) -> int:
    """How many channels the entries of `stored [.., width]` have."""
    bits = CODINGS[stored.dtype].bits if stored.dtype in CODINGS else 8 * stored.dtype.itemsize
    return stored.shape[-1] * stored.dtype.itemsize * 8 // bits


def entry_bytes(head_dim: int, value_dim: int, kept: torch.dtype) -> int:
    """What the key and the value of one token in one layer and KV head take."""
    scales = 2 * SCALES.itemsize if kept in CODINGS else 0
    return (width_of(head_dim, kept) + width_of(value_dim, kept)) * kept.itemsize + scales
