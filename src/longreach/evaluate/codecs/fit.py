"""Fitting codecs to a model: `longreach.kv.codec.profile` from prompts that it has read and answered."""

from __future__ import annotations

from collections.abc import Sequence

from longreach.attention.rotation import Rotation
from longreach.evaluate.codecs.case import Case
from longreach.kv.codec import Profile, fit
from longreach.model.load import LoadedModel
from longreach.model.sensitivity import measure


def fit_profile(
    loaded: LoadedModel, rotations: Sequence[Rotation], cases: Sequence[Case], fingerprint: str, repeats: int = 2
) -> Profile:
    """The profile of the model with this `fingerprint`, whose layers turn keys by `rotations`. Raises InputError for
    too few tokens of passages: twice as many as a layer has channels, and better twenty times."""
    readings = [case.reading for case in cases]
    sensitivity = measure(loaded, rotations, readings, repeats, fingerprint=fingerprint)
    return Profile(tuple(rotations), sensitivity, fit([case.kv for case in cases], rotations, sensitivity))
