"""`ape`: passages side by side, and attention to them made sharper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from longreach.engine.ways import OpenStore, ways
from longreach.engine.ways.naive import Naive

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


@ways.register("ape")
@dataclass(frozen=True)
class SideBySide(Naive):
    """Passages are read apart by the model as it is and stand side by side behind what opens the prompt; all that
    follows attends to them with logits over `temperature` and their log-sum-exp times `scale`
    (`longreach.kv.reuse.ape`, Yang et al. 2025, arXiv 2502.05431). Nothing is computed again. For models whose layers
    all see all of the text."""

    unasked: ClassVar[bool] = False
    temperature: float = 0.9
    scale: float = 0.9

    def made_of(self, engine: PagedEngine) -> str | None:
        windowed = any(window is not None for window in engine.bridge.shapes.windows)
        return None if windowed else super().made_of(engine)

    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        from longreach.kv.reuse import reuses

        method = reuses.make(f"ape(temperature={self.temperature}, scale={self.scale})")
        super().begin(engine, store)
        assert engine.passages is not None
        engine.passages.repair_by(method)
