"""The gate: in which way a model that was just loaded may reuse what it has read. Imported only where a model runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from longreach.config import Settings
from longreach.engine.card import FOLDER, Bound, Card, find_card
from longreach.engine.stores import open_store
from longreach.engine.ways import EXACT, Way, ways
from longreach.errors import SpecError, UnsupportedError
from longreach.kv import int4
from longreach.model.adapter import weights_of
from longreach.model.identity import kv_fingerprint

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine


def begin_reuse(engine: PagedEngine, settings: Settings, report: Callable[[str], None] | None = None) -> None:
    """Let an engine reuse what it has read as `settings` say: in the cheapest way that its card finds within the bound
    ("auto"), in a way that is named, or with nothing but what prompts begin with ("off"). Of a model without a card,
    `report` is told, once. Raises SpecError for a way that is not known, UnsupportedError for one that this model
    cannot go."""
    if settings.reuse == "off":
        return
    spec = chosen(engine, settings, report) if settings.reuse == "auto" else settings.reuse
    way = ways.make(spec)
    if way.made_of(engine) is None:
        raise UnsupportedError(f"{engine.model} cannot reuse by {spec}: set reuse to auto, off or another way")
    way.begin(engine, partial(open_store, engine.loaded, settings, engine.pool.keys.dtype, report))
    engine.way = spec


def chosen(engine: PagedEngine, settings: Settings, report: Callable[[str], None] | None = None) -> str:
    """The spec of the cheapest way within the bound of `settings`."""
    if not engine.bridge.relocatable or not measurable(engine):
        return EXACT
    weights = weights_of(engine.loaded.model)
    # Any dtype rounds less than a way may lose; 4 bits do not, and what they lose adds up with that.
    shipped = engine.pool.keys.dtype != int4.CODES
    card = find_card(settings.cache, weights, partial(fingerprint_of, engine), shipped)
    if card is None:
        if report is not None and _first_time(settings.cache / FOLDER / f"{weights}.told"):
            report(
                f"{engine.model} was never measured: only what prompts begin with is reused; "
                f"`longreach doctor {engine.model}` measures what more it can reuse"
            )
        return EXACT
    return cheapest(engine, card, Bound(settings.reuse_kl, settings.reuse_agreement))


def measurable(engine: PagedEngine) -> bool:
    """Whether a model's probabilities can be looked at along an answer, as a card needs it: not where layers do not see
    all of the text."""
    return all(window is None for window in engine.bridge.shapes.windows)


def cheapest(engine: PagedEngine, card: Card, bound: Bound) -> str:
    """The first way within the bound that this engine can go, with what it was measured with."""
    for one in card.within(bound):
        way = _known(one.way)
        if way is not None and way.made_of(engine) == one.made_of:
            return one.way
    return EXACT


def fingerprint_of(engine: PagedEngine) -> str:
    """Of the keys and values that an engine makes: what its card goes by."""
    return kv_fingerprint(engine.loaded, str(engine.pool.keys.dtype))


def _known(spec: str) -> Way | None:
    """A way of the card; None where it was measured by a version that had others."""
    try:
        return ways.make(spec)
    except SpecError:
        return None


def _first_time(mark: Path) -> bool:
    """Whether `mark` is made now; where it cannot be, every time is the first."""
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass
    return True
