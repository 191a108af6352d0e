"""Whether, and how, a model's keys can be moved to other positions: tried out, not assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from longreach.attention.rotation import Rotation

_SHIFTS = (3, 37)
_LENGTH_DEPENDENT = {"dynamic", "longrope"}
"""Ways of scaling rotary positions that depend on the length of the text: the same key differs from text to text."""


def find_rotations(model: Any, keys_at: Callable[[int], list[torch.Tensor]]) -> list[Rotation] | None:
    """The rotation of each layer, None where the keys of one cannot be moved exactly.

    `keys_at(first)` are the keys `[tokens, kv_heads, dim]` of each layer for the same tokens at positions from `first`
    on. A rotation is right when it turns the keys of one place into those of another.
    """
    if any(kind in _LENGTH_DEPENDENT for kind in _kinds(model.config)):
        return None
    here = keys_at(0)
    there = {shift: keys_at(shift) for shift in _SHIFTS}
    candidates = [Rotation.none(), *_candidates(model)]
    found = []
    for layer, key in enumerate(here):
        fitting = (
            rotation
            for rotation in candidates
            if 2 * len(rotation.frequencies) <= key.shape[-1]
            and all(_near(rotation.turn(key, shift), there[shift][layer]) for shift in _SHIFTS)
        )
        rotation = next(fitting, None)
        if rotation is None:
            return None
        found.append(rotation)
    return found


def _candidates(model: Any) -> Iterator[Rotation]:
    seen: set[bytes] = set()
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            frequencies = buffer.detach().double().cpu()
            if frequencies.numpy().tobytes() not in seen:
                seen.add(frequencies.numpy().tobytes())
                yield Rotation(frequencies)
                yield Rotation(frequencies, interleaved=True)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether a rotation is the right one; a wrong one is off by about as much as the keys are large. In 16 bits, sums
    in another order move some numbers of deep layers far, and all together by a tenth at most."""
    exact = torch.finfo(other.dtype).bits == 32
    one, other = one.float(), other.float()
    if exact:
        return float((one - other).abs().max() / other.abs().max().clamp_min(1e-6)) < 1e-3
    return float((one - other).norm() / other.norm().clamp_min(1e-6)) < 0.15


def _kinds(config: Any) -> set[str]:
    """The `rope_type`s that a configuration speaks of, for all layers or by layer type."""
    text = config.get_text_config(decoder=True)
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    sets = [given, *(part for part in given.values() if isinstance(part, dict))]
    return {str(part["rope_type"]) for part in sets if "rope_type" in part}
