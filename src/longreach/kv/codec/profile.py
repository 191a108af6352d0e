"""What codecs know of one model: measured and fitted once, kept in a file, the same for whoever writes and reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.rotation import Rotation
from longreach.cache import put
from longreach.kv.codec import entropy
from longreach.kv.codec.codec import Codec, codecs, make
from longreach.kv.codec.fields import turns_in, turns_out
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.ladder_fit import Ladder, Matrices
from longreach.kv.codec.rates import Rates
from longreach.kv.codec.sensitivity import Sensitivity
from longreach.registry import parse

_PARTS = 1 + entropy.PARTS


def takes_profile(spec: str) -> bool:
    """Whether the codec that `spec` names takes anything from a profile. Raises SpecError."""
    takes = {option.name for option in fields(codecs.get(parse(spec).name))}  # type: ignore[arg-type]
    return bool(takes & {"sensitivity", "ladder"})


@dataclass(frozen=True, eq=False)
class Profile:
    """How a model turns its keys, a `Rotation` for each layer, how much its answers mind errors in them, and what its
    layers tell of each other. All of one model. `rates`, by the name of a codec, are about the bits that it takes for a
    number at each level, as they were when it was fitted (`longreach.kv.codec.rates`); `origin` names what it was
    fitted to."""

    rotations: tuple[Rotation, ...]
    sensitivity: Sensitivity
    ladder: Ladder
    rates: Rates = field(default_factory=dict)
    origin: str = ""

    def make(self, spec: str, device: torch.device | str = "cpu") -> Codec:
        """The codec that `spec` names, for this model. Raises SpecError."""
        return make(
            spec,
            rotations=self.rotations,
            sensitivity=self.sensitivity,
            ladder=self.ladder,
            rates=self.rates,
            device=device,
        )

    def save(self, file: Path) -> None:
        """Write it, in the place of what was there: about 1.2 bytes for each pair of channels of a layer. Raises
        DiskFullError, and ModelError where it cannot be written."""
        ladder, known = self.ladder, self.sensitivity
        plain = [side.float().cpu().numpy() for side in (ladder.means, ladder.steps, known.keys, known.values)]
        coded = [*_packed(ladder.rungs), *_packed(ladder.axes)]
        turns, frequencies = turns_out(self.rotations)
        rates = {name: list(levels) for name, levels in self.rates.items()}
        told = {"fingerprint": ladder.fingerprint, "origin": self.origin, "rates": rates, **turns}
        put(file, write(Frame("profile", told, [*plain, *coded, *frequencies])))

    @classmethod
    def load(cls, file: Path, fingerprint: str) -> Profile:
        """Read what `save` wrote. Raises CodecError for a file that is not there, damaged, or another model's."""
        try:
            frame = read(file.read_bytes(), "profile")
        except OSError as error:
            raise CodecError(f"the codec's profile {file} cannot be read: {error}") from None
        if frame.fields.get("fingerprint") != fingerprint:
            raise CodecError(f"{file} was fitted to another model: fit it again")
        try:
            means, steps, keys, values = (torch.from_numpy(np.array(side, np.float32)) for side in frame.arrays[:4])
            rungs, axes = (_unpacked(frame.arrays[at : at + _PARTS], means.shape) for at in (4, 4 + _PARTS))
            ladder = Ladder(fingerprint, means, steps, rungs, axes)
            rotations = turns_in(frame, frame.arrays[4 + 2 * _PARTS :])
            told = frame.fields.get("rates", {}).items()
            rates = {str(name): tuple(float(bits) for bits in levels) for name, levels in told}
            origin = str(frame.fields.get("origin", ""))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError):
            raise CodecError(f"the codec's profile {file} is damaged: its parts do not fit together") from None
        return cls(tuple(rotations), Sensitivity(fingerprint, keys, values), ladder, rates, origin)

    @classmethod
    def find(cls, folder: Path, origin: str) -> Profile | None:
        """Of the files in `folder`, each named as the model's fingerprint, what was last fitted to `origin`."""
        dated = [(file.stat().st_mtime, file) for file in folder.glob("*.profile")]
        for _, file in sorted(dated, reverse=True):
            try:
                found = cls.load(file, file.stem)
            except CodecError:
                continue
            if found.origin == origin:
                return found
        return None


def _packed(matrices: Matrices) -> list[NDArray[Any]]:
    rows = matrices.whole.reshape(-1, matrices.whole.shape[2]).astype(np.int32)
    return [matrices.scales, *entropy.encode(rows)]


def _unpacked(arrays: Sequence[NDArray[Any]], shape: Sequence[int]) -> Matrices:
    """What `_packed` was given; `shape`: layers and channels. Raises CodecError or ValueError where it does not fit."""
    layers, n = shape
    scales = np.array(arrays[0], np.float32).reshape(layers, n)
    return Matrices(entropy.decode(arrays[1:], layers * n, n).astype(np.int8).reshape(layers, n, n), scales)
