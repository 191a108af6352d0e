"""Fitting codecs to a model: `longreach.kv.codec.profile` from prompts that it has read and answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from longreach.attention.rotation import Rotation
from longreach.evaluate.codecs.case import Case
from longreach.kv.codec import Codec, Profile, fisher, fit, ladder
from longreach.kv.codec.fisher import LEVELS
from longreach.model.load import LoadedModel
from longreach.model.sensitivity import measure

_RATED = 4
"""Passages, each of another prompt, by which it is measured how much the codecs take."""


def fit_profile(
    loaded: LoadedModel, rotations: Sequence[Rotation], cases: Sequence[Case], fingerprint: str, repeats: int = 2
) -> Profile:
    """The profile of the model with this `fingerprint`, whose layers turn keys by `rotations`, and what its codecs take
    of a few of the passages. Raises InputError for too few tokens of passages: twice as many as a layer has channels,
    and better twenty times."""
    readings = [case.reading for case in cases]
    sensitivity = measure(loaded, rotations, readings, repeats, fingerprint=fingerprint)
    made = Profile(tuple(rotations), sensitivity, fit([case.kv for case in cases], rotations, sensitivity))
    some = [case.passage(0) for case in cases[:_RATED]]
    rates = {
        name: _bits([made.make(f"{name}({level})") for level in range(len(LEVELS))], some, beside)
        for name, beside in (("fisher", fisher.BESIDE), ("ladder", ladder.BESIDE))
    }
    return replace(made, rates=rates)


def _bits(
    levels: Sequence[Codec], passages: Sequence[tuple[torch.Tensor, torch.Tensor, int]], beside: float
) -> tuple[float, ...]:
    """Bits a number at each of the `levels` of a codec, by what they write of `passages` (keys, values and the position
    of the first key), where each row takes `beside` bits more in each of them."""
    numbers = sum(keys.numel() + values.numel() for keys, values, _ in passages)
    rows = sum((keys.numel() + values.numel()) // keys.shape[2] for keys, values, _ in passages)
    sizes = (sum(len(level.encode(*passage)) for passage in passages) for level in levels)
    return tuple(max(0.0, (8 * size - beside * rows) / numbers) for size in sizes)
