"""A token by the inverse of the distribution function."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.engine.sample.rows import column


def invert(probabilities: torch.Tensor, uniforms: Sequence[float]) -> torch.Tensor:
    """The tokens [rows] up to which the mass of each row first exceeds its number in [0, 1).

    `probabilities` [rows, vocab] need not sum to one. A token without mass never comes.
    """
    masses = probabilities.cumsum(dim=-1)
    wanted = column(uniforms, masses) * masses[:, -1:]
    found = torch.searchsorted(masses, wanted, right=True).clamp(max=masses.shape[-1] - 1)
    # Rounding may lead past the last token that has mass, or into one that has none.
    possible = probabilities.gather(-1, found) > 0
    return torch.where(possible, found, probabilities.argmax(dim=-1, keepdim=True))[:, 0]
