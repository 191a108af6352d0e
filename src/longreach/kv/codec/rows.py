"""Keys and values as rows, one a channel, and back: what codecs with a table for each channel work on."""

from __future__ import annotations

import torch

Shape = tuple[int, int, int, int]


def to_rows(x: torch.Tensor) -> torch.Tensor:
    """`x [layers, kv_heads, tokens, channels]` as `[layers * kv_heads * channels, tokens]`, float32, on the CPU."""
    return x.detach().cpu().float().transpose(2, 3).reshape(-1, x.shape[2]).contiguous()


def from_rows(rows: torch.Tensor, shape: Shape) -> torch.Tensor:
    """What `to_rows` was given: `shape` is that of the result."""
    layers, heads, tokens, channels = shape
    return rows.view(layers, heads, channels, tokens).transpose(2, 3).contiguous()
