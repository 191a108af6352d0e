"""What the ways have in common that compute a part of each prompt's passages again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from longreach.engine.ways import OpenStore
from longreach.engine.ways.adapter import WithAdapter
from longreach.kv.reuse.reuse import check_share

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


@dataclass(frozen=True)
class Repaired(WithAdapter):
    """Passages are read apart, with the model's adapter where it has one; of each prompt, the `share` of their tokens
    that `method` of `longreach.kv.reuse` chooses is computed again behind what really stands before it
    (`longreach.engine.repair`). A prompt most of whose passages are new is read as a whole, and they later."""

    method: ClassVar[str]
    share: float = 0.15

    def __post_init__(self) -> None:
        check_share(self.share)

    def made_of(self, engine: PagedEngine) -> str | None:
        return (super().made_of(engine) or "") if engine.bridge.relocatable else None

    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        from longreach.kv.reuse import reuses

        super().begin(engine, store)
        assert engine.passages is not None
        engine.passages.repair_by(reuses.make(f"{self.method}(share={self.share})"))
        engine.passages.postpone()
