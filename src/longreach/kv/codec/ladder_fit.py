"""What the KV of one layer tells about that of the next, fitted to a model: what `ladder` is coded by."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.rotation import Rotation
from longreach.errors import InputError
from longreach.kv.codec.rows import to_rows
from longreach.kv.codec.sensitivity import Sensitivity
from longreach.kv.codec.upright import turn_back

LOSS = 2.6e-4
"""A step is this, divided by the root of its channel's weight."""
_RIDGE = 0.01
_MOST = 31
Sample = tuple[torch.Tensor, torch.Tensor, int]
"""Keys, values, and the position of the first key."""


@dataclass(frozen=True, eq=False)
class Matrices:
    """One matrix a layer in 6 bits: `whole [layers, n, n]` int8, in steps of `scales [layers, n]`, one a row. What they
    code takes 1 % more than by all bits; by 4 it takes 13 % more (embedded model)."""

    whole: NDArray[np.int8]
    scales: NDArray[np.float32]

    @classmethod
    def rounded(cls, matrices: Sequence[NDArray[np.float64]]) -> Matrices:
        """The nearest to `matrices [n, n]`."""
        found = np.stack(matrices)
        scales = (np.abs(found).max(2) / _MOST).clip(1e-30).astype(np.float32)
        return cls((found / scales[:, :, None]).round().clip(-_MOST, _MOST).astype(np.int8), scales)

    def of(self, layer: int) -> torch.Tensor:
        """`[n, n]`, float32."""
        return torch.from_numpy(self.whole[layer]).float() * torch.from_numpy(self.scales[layer])[:, None]


@dataclass(frozen=True, eq=False)
class Ladder:
    """For each layer, over its `n` channels (keys of all heads, turned back, then values): `means [layers, n]`, `steps
    [layers, n]`; in units of steps, `rungs` from the layer below to the forecast of this one, and `axes` (orthonormal,
    to the rounding) on which what the forecast leaves is uncorrelated. `fingerprint` is the model's.
    """

    fingerprint: str
    means: torch.Tensor
    steps: torch.Tensor
    rungs: Matrices
    axes: Matrices

    @cached_property
    def onto_axes(self) -> list[torch.Tensor]:
        """For each layer `[n, n]` onto its axes: their inverse, since rounded ones are not quite orthonormal."""
        return [torch.linalg.inv(self.axes.of(layer).double()).float() for layer in range(len(self.means))]

    @cached_property
    def id(self) -> str:
        """Differs where anything differs: what one ladder wrote no other reads."""
        crc = 0
        plain = (self.means.numpy(), self.steps.numpy(), self.rungs.scales, self.axes.scales)
        for part in (*(side.tobytes() for side in plain), self.rungs.whole.tobytes(), self.axes.whole.tobytes()):
            crc = zlib.crc32(part, crc)
        return f"{self.fingerprint}-{crc:08x}"


def stack(upright: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Keys, turned back, and values `[layers, kv_heads, tokens, dim]` as `[layers, n, tokens]` float32."""
    layers, _, tokens, _ = upright.shape
    return torch.cat([to_rows(x).view(layers, -1, tokens) for x in (upright, values)], 1)


def fit(samples: Sequence[Sample], rotations: Sequence[Rotation], sensitivity: Sensitivity, seed: int = 0) -> Ladder:
    """A ladder from the KV of a few texts, some twenty tokens for each channel of a layer in all.

    `rotations` are those of the layers. A layer is forecast linearly from the one below as it will be read, off by up
    to half a step. Raises InputError for too few tokens.
    """
    data = torch.cat(
        [stack(turn_back(keys.float().cpu(), rotations, start), values) for keys, values, start in samples], 2
    )
    layers, n, tokens = data.shape
    if tokens < 2 * n:
        raise InputError(f"{tokens} tokens are too few to fit {n} channels: give at least {2 * n}")
    weights = torch.cat([side.float().reshape(layers, -1) for side in (sensitivity.keys, sensitivity.values)], 1)
    steps = LOSS / weights.clamp_min(1e-20).sqrt()
    means = data.mean(2)
    units = (data - means[:, :, None]) / steps[:, :, None]
    noise = torch.rand(units.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    rungs, axes = [], []
    for layer in range(layers):
        here = units[layer].double().numpy()
        rung = np.zeros((n, n))
        if layer:
            below = (units[layer - 1] + noise[layer - 1]).double().numpy()
            gram = below @ below.T
            gram += np.eye(n) * np.diag(gram).mean() * _RIDGE
            rung = np.linalg.solve(gram, below @ here.T).T
            here = here - rung @ below
        rungs.append(rung)
        axes.append(np.linalg.eigh(here @ here.T / tokens)[1])
    return Ladder(sensitivity.fingerprint, means, steps, Matrices.rounded(rungs), Matrices.rounded(axes))
