"""Runs of tokens as pages."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def paged(values: torch.Tensor, size: int) -> torch.Tensor:
    """`[layers, heads, tokens, dim]` as pages `[pages, size, dim]`, the last of each stream filled up with zeros."""
    missing = -values.shape[2] % size
    padded = torch.nn.functional.pad(values, (0, 0, 0, missing)) if missing else values
    return padded.reshape(-1, size, values.shape[3])


def place_of(pages: NDArray[np.int32], device: torch.device) -> slice | torch.Tensor:
    """An index into what a pool on `device` has stored, by which `pages`, in their order, are found: a slice where they
    are neighbours."""
    flat = pages.reshape(-1)
    if neighbours(flat):
        return slice(int(flat[0]), int(flat[-1]) + 1)
    return torch.from_numpy(flat.astype(np.int64)).to(device)


def neighbours(pages: NDArray[np.int32]) -> bool:
    """Whether `pages`, one after the other, are one run without a gap."""
    flat = pages.reshape(-1)
    return len(flat) > 0 and bool(flat[-1] - flat[0] == len(flat) - 1) and bool((np.diff(flat) == 1).all())
