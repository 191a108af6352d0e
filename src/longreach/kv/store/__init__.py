"""Where the KV of chunks is kept between questions: in pages, in host memory, on disk.

`KVStore` (store.py) is what others use. Nothing here loads PyTorch by being imported: how much a folder holds can be
said without it.
"""

from longreach.kv.store.entry import Codec, Entry, Named
from longreach.kv.store.key import Key
from longreach.kv.store.stats import StoreStats, TierStats
from longreach.kv.store.store import KVStore

__all__ = ["Codec", "Entry", "KVStore", "Key", "Named", "StoreStats", "TierStats"]
