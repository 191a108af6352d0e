"""`prefix`: what prompts begin with, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longreach.engine.ways import OpenStore, Way, ways

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


@ways.register("prefix")
@dataclass(frozen=True)
class Prefix(Way):
    """A prompt takes over the longest beginning that it shares with an earlier one: exact, and what an engine does by
    itself."""

    def made_of(self, engine: PagedEngine) -> str:
        return ""

    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        pass
