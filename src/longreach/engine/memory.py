"""How much memory keys and values get when nobody says."""

from __future__ import annotations

import torch

from longreach.errors import InputError, UnsupportedError
from longreach.kv.coding import CODINGS
from longreach.kv.pool import PagePool, bytes_of_page
from longreach.model.bridge import Shapes
from longreach.model.load import LoadedModel

SHARE, MOST = 0.25, 4 << 30
"""On a processor: this share of the memory that is free, and at most so many bytes. Untouched pages cost nothing."""
SHARE_CUDA = 0.85
"""On CUDA: of the memory that is free when the weights are loaded."""


def pool_for(
    shapes: Shapes, loaded: LoadedModel, kv_bytes: int | None, page_size: int | None, dtype: torch.dtype | None = None
) -> PagePool:
    """A pool of `kv_bytes`, or of what suits the machine, for keys and values in `dtype` (None: the model's). Raises
    InputError where it would hold nothing, UnsupportedError for numbers that the device's kernels do not read."""
    kept = dtype or loaded.dtype
    if loaded.device.type == "cuda" and kept != loaded.dtype and kept not in CODINGS:
        raise UnsupportedError(
            f"on CUDA keys and values are kept as the model computes them, in {loaded.dtype}, or in 8 or 4 bits, and "
            f"not in {kept}: set kv_dtype to auto, int8 or int4"
        )
    size = page_size or (64 if loaded.device.type == "cuda" else 16)
    page = bytes_of_page(size, shapes.head_dim, shapes.value_dim, kept)
    pages = (_suitable(loaded.device) if kv_bytes is None else kv_bytes) // page
    if pages < shapes.layers * shapes.kv_heads:
        needed = shapes.layers * shapes.kv_heads * page
        raise InputError(f"kv_bytes={kv_bytes} holds no token: give at least {needed}")
    return PagePool(int(pages), size, shapes.head_dim, dtype=kept, device=loaded.device, value_dim=shapes.value_dim)


def _suitable(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * SHARE_CUDA)
    return min(MOST, int(_free_memory() * SHARE))


def _free_memory() -> int:
    """Bytes that programs can still have."""
    import psutil

    return int(psutil.virtual_memory().available)
