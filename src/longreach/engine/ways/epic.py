"""`epic`: passages read apart, and the first tokens of each computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from longreach.engine.ways import ways
from longreach.engine.ways.repaired import Repaired


@ways.register("epic")
@dataclass(frozen=True)
class FirstTokens(Repaired):
    """The first tokens of each passage are computed again (`longreach.kv.reuse.epic`): no look at the question comes
    before it, and what is computed is the same for every question."""

    method: ClassVar[str] = "epic"
    tried: ClassVar[tuple[str, ...]] = ("epic(share=0.2)", "epic(share=0.3)")
