"""`cache_craft`: passages read behind filler, and what looked outside of them computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from longreach.engine.ways import OpenStore, Tokenizes, Way, ways
from longreach.kv.reuse.reuse import check_share

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


@ways.register("cache_craft")
@dataclass(frozen=True)
class CacheCrafted(Way):
    """Passages are read behind the opening and a few passages of filler, which leave the prompt again, and it is noted
    how much each token attended to them; of each prompt, the `share` of the tokens that did most is computed again
    (`longreach.kv.reuse.cache_craft`, Agarwal et al. 2025, arXiv 2502.15734).

    No adapter is laid on: those that there are were trained for passages right behind the opening. The filler takes at
    most a quarter of what the model can read. A prompt most of whose passages are new is read as a whole, and they
    later.
    """

    tried: ClassVar[tuple[str, ...]] = ("cache_craft(share=0.15)",)
    unasked: ClassVar[bool] = False
    share: float = 0.15

    def __post_init__(self) -> None:
        check_share(self.share)

    def made_of(self, engine: PagedEngine) -> str | None:
        return "" if engine.bridge.relocatable else None

    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        from longreach.kv.reuse import reuses

        engine.keep_passages(store())
        assert engine.passages is not None
        engine.passages.read_behind(self.filler(engine))
        engine.passages.repair_by(reuses.make(f"cache_craft(share={self.share})"))
        engine.passages.postpone()

    def filler(self, texts: Tokenizes) -> list[int]:
        from longreach.kv.reuse.filler import FILLER

        return texts.tokenize("\n\n".join((*FILLER, "")))[: texts.context_length // 4]
