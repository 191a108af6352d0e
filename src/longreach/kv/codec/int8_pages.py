"""`int8_pages`: integers of 8 bits with one scale for each key and each value, as pages of 8 bits have them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from longreach.kv.codec.as_pages import AsPages
from longreach.kv.codec.codec import codecs
from longreach.kv.int8 import CODES


@codecs.register("int8_pages")
@dataclass
class Int8Pages(AsPages):
    """8 bits an element and 16 for each token's key and value in a layer and KV head: see `longreach.kv.int8`. What
    lies in pages of 8 bits loses nothing; of others an element is off by at most half a scale."""

    name: str = field(default="int8_pages", init=False)
    kept: torch.dtype = field(default=CODES, init=False)
