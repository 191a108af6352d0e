"""`int4_pages`: integers of 4 bits with one scale for each key and each value, as pages of 4 bits have them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from longreach.kv.codec.as_pages import AsPages
from longreach.kv.codec.codec import codecs
from longreach.kv.int4 import CODES


@codecs.register("int4_pages")
@dataclass
class Int4Pages(AsPages):
    """4 bits an element and 16 for each token's key and value in a layer and KV head: see `longreach.kv.int4`. What
    lies in pages of 4 bits loses nothing; others are spread and rounded as these are."""

    name: str = field(default="int4_pages", init=False)
    kept: torch.dtype = field(default=CODES, init=False)
