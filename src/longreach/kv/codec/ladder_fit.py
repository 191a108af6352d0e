"""What the KV of one layer tells about that of the next, fitted to a model: what `ladder` is coded by."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from longreach.attention.rotation import Rotation
from longreach.errors import InputError
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.rows import to_rows
from longreach.kv.codec.sensitivity import Sensitivity
from longreach.kv.codec.upright import turn_back

LOSS = 2.6e-4
"""A step is this, divided by the root of its channel's weight."""
_RIDGE = 0.01
Sample = tuple[torch.Tensor, torch.Tensor, int]
"""Keys, values, and the position of the first key."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """For each layer, over its `n` channels (keys of all heads, turned back, then values): `means [layers, n]`, `steps
    [layers, n]`; in units of steps, `rungs [layers, n, n]` from the layer below to the forecast of this one, and `axes
    [layers, n, n]` (orthonormal) on which what the forecast leaves is uncorrelated. `fingerprint` is the model's.
    """

    fingerprint: str
    means: torch.Tensor
    steps: torch.Tensor
    rungs: torch.Tensor
    axes: torch.Tensor

    @cached_property
    def id(self) -> str:
        """Differs where anything differs: what one ladder wrote no other reads."""
        crc = 0
        for part in (self.means, self.steps, self.rungs, self.axes):
            crc = zlib.crc32(part.numpy().tobytes(), crc)
        return f"{self.fingerprint}-{crc:08x}"

    def save(self, path: Path) -> None:
        """Write a file of `6 * layers * n**2` bytes."""
        arrays = [self.means.numpy(), self.steps.numpy(), self.rungs.numpy(), self.axes.numpy()]
        path.write_bytes(write(Frame("ladder_fit", {"fingerprint": self.fingerprint}, arrays)))

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> Ladder:
        """Read what `save` wrote. Raises CodecError for a damaged file and for another model's."""
        frame = read(path.read_bytes(), "ladder_fit")
        if frame.fields.get("fingerprint") != fingerprint or len(frame.arrays) != 4:
            raise CodecError(f"{path} was fitted to another model: fit it again")
        return cls(fingerprint, *(torch.from_numpy(np.array(array)) for array in frame.arrays))


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
    rungs, axes = np.zeros((layers, n, n), np.float16), np.zeros((layers, n, n), np.float32)
    for layer in range(layers):
        here = units[layer].double().numpy()
        if layer:
            below = (units[layer - 1] + noise[layer - 1]).double().numpy()
            gram = below @ below.T
            gram += np.eye(n) * np.diag(gram).mean() * _RIDGE
            rungs[layer] = np.linalg.solve(gram, below @ here.T).T.clip(-6e4, 6e4)
            here = here - rungs[layer].astype(np.float64) @ below
        axes[layer] = np.linalg.eigh(here @ here.T / tokens)[1]
    return Ladder(sensitivity.fingerprint, means, steps, torch.from_numpy(rungs), torch.from_numpy(axes))
