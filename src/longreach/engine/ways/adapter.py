"""`adapter`: passages as the model reads them with its adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longreach.engine.ways import OpenStore, Way, ways

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


@ways.register("adapter")
@dataclass(frozen=True)
class WithAdapter(Way):
    """Passages are read apart with the adapter that was trained for it (`longreach.model.adapters`), where the model
    has one."""

    def made_of(self, engine: PagedEngine) -> str | None:
        from longreach.model.adapters import adapter_for

        adapter = adapter_for(engine.loaded.model) if engine.bridge.relocatable else None
        return None if adapter is None else adapter.name

    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        from longreach.model.adapters import adapter_for

        engine.keep_passages(store(), adapter_for(engine.loaded.model))
