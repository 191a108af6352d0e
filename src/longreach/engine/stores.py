"""Where an engine keeps the passages that it has read. Imported only where a model runs."""

from __future__ import annotations

import torch

from longreach.config import Settings
from longreach.kv.codec import make
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.identity import kv_fingerprint
from longreach.model.load import LoadedModel

CODEC = "int8(group=64)"
"""Half the bytes of 16 bits; answers are those of 16 bits (`bench/codec.py`)."""
HOST_BYTES = 512 << 20


def open_store(loaded: LoadedModel, settings: Settings, kept: torch.dtype) -> KVStore:
    """The store of a model whose keys and values lie in pages as `kept`."""
    return KVStore.open(
        settings.kv_store,
        fingerprint=kv_fingerprint(loaded, str(kept)),
        codec=Named(CODEC, make(CODEC, device=loaded.device)),
        host_bytes=HOST_BYTES,
        disk_bytes=int(settings.store_gb * 1e9),
        model=loaded.name,
    )
