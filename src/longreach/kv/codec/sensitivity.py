"""How much it matters, to a model's answers, that a key or a value is off: what the steps of `fisher` follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longreach.kv.codec.frame import CodecError, Frame, read, write


@dataclass(frozen=True)
class Sensitivity:
    """Weights of squared errors, `keys [layers, kv_heads, head_dim]` (of keys turned back) and `values` alike: an error
    `e` in one element of one token adds about `weight * e**2 / 2` to the KL divergence of each token of the answer.

    `longreach.model.sensitivity` measures them. `fingerprint` is that of the model.
    """

    fingerprint: str
    keys: torch.Tensor
    values: torch.Tensor

    def save(self, path: Path) -> None:
        """Write a file of 4 bytes a channel."""
        arrays = [side.float().cpu().numpy() for side in (self.keys, self.values)]
        path.write_bytes(write(Frame("sensitivity", {"fingerprint": self.fingerprint}, arrays)))

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> Sensitivity:
        """Read what `save` wrote. Raises CodecError for a damaged file and for another model's."""
        frame = read(path.read_bytes(), "sensitivity")
        if frame.fields.get("fingerprint") != fingerprint or len(frame.arrays) != 2:
            raise CodecError(f"{path} was measured on another model: measure it again")
        keys, values = (torch.from_numpy(np.array(array, np.float32)) for array in frame.arrays)
        return cls(fingerprint, keys, values)
