"""Keys as they were before their positions turned them: there their channels vary less from token to token."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.attention.rotation import Rotation
from longreach.errors import InputError


def turn_back(keys: torch.Tensor, rotations: Sequence[Rotation], start: int = 0) -> torch.Tensor:
    """Token `i` of `keys [layers, heads, tokens, dim]`, float32, turned back by `start + i` places."""
    return _turn(keys, rotations, start, -1)


def turn_forth(keys: torch.Tensor, rotations: Sequence[Rotation], start: int = 0) -> torch.Tensor:
    """What `turn_back` was given, to the rounding of float32."""
    return _turn(keys, rotations, start, 1)


def _turn(keys: torch.Tensor, rotations: Sequence[Rotation], start: int, sign: int) -> torch.Tensor:
    if not rotations:
        return keys
    if len(rotations) != len(keys) or any(2 * len(r.frequencies) > keys.shape[3] for r in rotations):
        raise InputError(f"{len(rotations)} rotations do not fit keys of {len(keys)} layers, {keys.shape[3]} channels")
    turned = keys.clone()
    places = torch.arange(start, start + keys.shape[2], dtype=torch.float64) * sign
    for layers, rotation in _alike(rotations):
        pairs = len(rotation.frequencies)
        angles = torch.outer(places, rotation.frequencies.cpu())
        cos, sin = angles.cos().float(), angles.sin().float()
        one, two = (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2))
        if not rotation.interleaved:
            one, two = slice(0, pairs), slice(pairs, 2 * pairs)
        first, second = keys[layers][..., one], keys[layers][..., two]
        turned[layers, :, :, one] = first * cos - second * sin
        turned[layers, :, :, two] = second * cos + first * sin
    return turned


def _alike(rotations: Sequence[Rotation]) -> list[tuple[list[int], Rotation]]:
    """The layers that turn alike, with how they do; without those that do not turn."""
    found: dict[tuple[bytes, bool], tuple[list[int], Rotation]] = {}
    for layer, rotation in enumerate(rotations):
        if len(rotation.frequencies):
            key = (rotation.frequencies.double().cpu().numpy().tobytes(), rotation.interleaved)
            found.setdefault(key, ([], rotation))[0].append(layer)
    return list(found.values())
