"""`gaze`: passages read apart, and what the question looks at computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from longreach.engine.ways import ways
from longreach.engine.ways.repaired import Repaired


@ways.register("gaze")
@dataclass(frozen=True)
class Gazed(Repaired):
    """The tokens that the question attends to most are computed again (`longreach.kv.reuse.gaze`)."""

    method: ClassVar[str] = "gaze"
    tried: ClassVar[tuple[str, ...]] = ("gaze(share=0.15)", "gaze(share=0.3)")
