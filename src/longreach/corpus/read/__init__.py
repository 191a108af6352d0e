"""Readers: the bytes of one file become text with anchors. One module a reader, named as `formats.Reader` names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longreach.types import Anchor


@dataclass(frozen=True, slots=True)
class Extract:
    """What a reader found: `anchors` in order of their offsets; `title` is empty where the format tells none."""

    text: str
    anchors: Sequence[Anchor] = ()
    title: str = ""
    media_type: str = ""
