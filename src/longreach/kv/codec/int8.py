"""`int8`: integers of 8 bits with a step for each group."""

from __future__ import annotations

from dataclasses import dataclass, field

from longreach.kv.codec.codec import codecs
from longreach.kv.codec.grouped import Grouped


@codecs.register("int8")
@dataclass
class Int8(Grouped):
    """8 bits an element and 32 for every `group`: see `longreach.kv.codec.grouped`."""

    group: int = 64
    name: str = field(default="int8", init=False)
    bits: int = field(default=8, init=False)
