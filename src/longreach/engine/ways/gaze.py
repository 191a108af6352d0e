"""`gaze`: passages read apart, and what the question looks at computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from longreach.engine.ways import OpenStore, ways
from longreach.engine.ways.adapter import WithAdapter
from longreach.kv.reuse.reuse import check_share

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


@ways.register("gaze")
@dataclass(frozen=True)
class Gazed(WithAdapter):
    """Passages are read apart, with the model's adapter where it has one; of each prompt, the `share` of their tokens
    that the question attends to most is computed again behind what really stands before it (`longreach.kv.reuse.gaze`,
    `longreach.engine.repair`). A prompt most of whose passages are new is read as a whole, and they later."""

    tried: ClassVar[tuple[str, ...]] = ("gaze(share=0.12)", "gaze(share=0.15)", "gaze(share=0.2)")
    share: float = 0.15

    def __post_init__(self) -> None:
        check_share(self.share)

    def made_of(self, engine: PagedEngine) -> str | None:
        return (super().made_of(engine) or "") if engine.bridge.relocatable else None

    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        from longreach.kv.reuse import reuses

        super().begin(engine, store)
        assert engine.passages is not None
        engine.passages.repair_by(reuses.make(f"gaze(share={self.share})"))
        engine.passages.postpone()
