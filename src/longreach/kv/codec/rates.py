"""How many bits a number takes by codecs that code by entropy: that is known by measuring alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Rates: TypeAlias = Mapping[str, Sequence[float]]
"""By the name of a codec: bits a number at each of its levels, without what each row of numbers takes in each entry."""


def bits_of(rates: Rates, name: str, level: int, otherwise: Sequence[float]) -> float:
    """What `rates` say of a level of the codec `name`, else, where that is not known, what `otherwise` says."""
    known = rates.get(name, ())
    return float((known if len(known) == len(otherwise) else otherwise)[level])
