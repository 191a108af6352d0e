"""What codecs know of one model: measured and fitted once, kept in a file, the same for whoever writes and reads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from longreach.attention.rotation import Rotation
from longreach.errors import DiskFullError, ModelError
from longreach.kv.codec.codec import Codec, codecs, make
from longreach.kv.codec.entropy import squeeze, unsqueeze
from longreach.kv.codec.fields import turns_in, turns_out
from longreach.kv.codec.frame import CodecError, Frame, read, write
from longreach.kv.codec.ladder_fit import Ladder, Matrices
from longreach.kv.codec.sensitivity import Sensitivity
from longreach.registry import parse


def takes_profile(spec: str) -> bool:
    """Whether the codec that `spec` names takes anything from a profile. Raises SpecError."""
    return any(field.name in ("sensitivity", "ladder") for field in fields(codecs.get(parse(spec).name)))  # type: ignore[arg-type]


_KINDS = ("<f4", "<f4", "|i1", "<f4", "|i1", "<f4")
"""Of the arrays of a ladder."""


@dataclass(frozen=True, eq=False)
class Profile:
    """How a model turns its keys, a `Rotation` for each layer, how much its answers mind errors in them, and what its
    layers tell of each other. All of one model."""

    rotations: tuple[Rotation, ...]
    sensitivity: Sensitivity
    ladder: Ladder

    def make(self, spec: str, device: torch.device | str = "cpu") -> Codec:
        """The codec that `spec` names, for this model. Raises SpecError."""
        return make(spec, rotations=self.rotations, sensitivity=self.sensitivity, ladder=self.ladder, device=device)

    def save(self, file: Path) -> None:
        """Write it, in the place of what was there: about two bytes for each pair of channels of a layer. Raises
        DiskFullError, and ModelError where it cannot be written."""
        import errno

        arrays = [squeeze(array) for array in self.ladder.arrays]
        sides = [side.float().cpu().numpy() for side in (self.sensitivity.keys, self.sensitivity.values)]
        turns, frequencies = turns_out(self.rotations)
        shapes = [list(array.shape) for array in self.ladder.arrays]
        told = {"fingerprint": self.ladder.fingerprint, "shapes": shapes, **turns}
        aside = file.with_name(f"{file.name}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(write(Frame("profile", told, [*arrays, *sides, *frequencies])))
            aside.replace(file)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DiskFullError(f"no room left on the disk for the codec's profile {file}") from None
            raise ModelError(f"the codec's profile cannot be written to {file}: {error}") from None

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
            parts = [
                unsqueeze(array, np.dtype(kind).type, int(np.prod(shape))).reshape(shape)
                for array, kind, shape in zip(frame.arrays, _KINDS, frame.fields["shapes"], strict=False)
            ]
            means, steps = (torch.from_numpy(part) for part in parts[:2])
            ladder = Ladder(fingerprint, means, steps, Matrices(*parts[2:4]), Matrices(*parts[4:]))
            at = len(_KINDS)
            keys, values = (torch.from_numpy(np.array(side, np.float32)) for side in frame.arrays[at : at + 2])
            rotations = turns_in(frame, frame.arrays[at + 2 :])
        except (KeyError, ValueError, TypeError, IndexError):
            raise CodecError(f"the codec's profile {file} is damaged: its parts do not fit together") from None
        return cls(tuple(rotations), Sensitivity(fingerprint, keys, values), ladder)
