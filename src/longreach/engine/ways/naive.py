"""`naive`: passages as the model reads them alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longreach.engine.ways import OpenStore, Way, ways

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


@ways.register("naive")
@dataclass(frozen=True)
class Naive(Way):
    """Passages are read apart by the model as it is, and turned to their places: nothing makes up for what they do not
    see of each other."""

    def made_of(self, engine: PagedEngine) -> str | None:
        return "" if engine.bridge.relocatable else None

    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        engine.keep_passages(store())
