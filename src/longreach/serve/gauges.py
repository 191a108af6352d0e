"""What an engine's memory holds, in figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from longreach.engine import Engine
from longreach.serve.driver import Runs


def engine_gauges(engine: Engine, runs: Runs) -> Iterator[tuple[str, str, str, dict[str, float]]]:
    """Name, what it says, its label, and the value for each of the label's ("" where it has none)."""
    here: Any = engine
    if hasattr(here, "held_pages"):
        yield "kv_pages", "Pages of the KV pool", "owner", runs.call(here.held_pages).result()
        yield "kv_page_bytes", "Bytes of a page", "", {"": here.pool.page_bytes}
    passages = getattr(here, "passages", None)
    if passages is not None:
        stats = passages.store.stats()
        tiers = {"device": stats.device, "host": stats.host, "disk": stats.disk}
        yield "kv_store_hits", "Passages found", "tier", {name: tier.hits for name, tier in tiers.items()}
        yield "kv_store_misses", "Passages not found", "tier", {name: tier.misses for name, tier in tiers.items()}
        yield "kv_store_bytes", "Bytes of passages", "tier", {name: tier.bytes for name, tier in tiers.items()}
