"""Spreading channels: a rotation after which none is much greater than the others.

A Hadamard matrix has entries of 1 and -1 alone and rows at right angles. Divided by the root of its size it is a
rotation that gives every channel the same part of each (QuIP, Chee et al. 2023, arXiv 2307.13304; for keys and queries
QuaRot, Ashkboos et al. 2024, arXiv 2404.00456). Products of two spread vectors are those of the vectors.
"""

from __future__ import annotations

from functools import cache

import torch


def block_of(channels: int) -> int:
    """How many neighbouring channels are spread over each other: the greatest power of two that divides `channels`."""
    return channels & -channels


@cache
def signs(channels: int, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`[channels, channels]` of 1, -1 and, between blocks, 0: symmetric, and `block_of(channels)` times the unit matrix
    when multiplied with itself."""
    block = torch.ones(1, 1)
    while len(block) < block_of(channels):
        block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)])
    return torch.kron(torch.eye(channels // len(block)), block).to(device, dtype)


def spread(x: torch.Tensor) -> torch.Tensor:
    """`x [.., channels]` spread over its channels, in its own dtype; the same again gives `x`, but for rounding."""
    channels = x.shape[-1]
    rows = x.reshape(-1, channels)
    matrix, share = signs(channels, x.device, x.dtype), block_of(channels) ** -0.5
    return torch.addmm(rows.new_zeros(()), rows, matrix, beta=0, alpha=share).view(x.shape)
