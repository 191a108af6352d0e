"""`int4`: integers of 4 bits with a step for each group."""

from __future__ import annotations

from dataclasses import dataclass, field

from longreach.kv.codec.codec import codecs
from longreach.kv.codec.grouped import Grouped


@codecs.register("int4")
@dataclass
class Int4(Grouped):
    """4 bits an element and 32 for every `group`: see `longreach.kv.codec.grouped`."""

    group: int = 32
    name: str = field(default="int4", init=False)
    bits: int = field(default=4, init=False)
