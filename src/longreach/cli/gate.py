"""`longreach doctor MODEL`: measure what reuse costs a model, and write its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from longreach.cli.common import err, note, open_library, out, print_json, shown_path
from longreach.config import Settings
from longreach.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    from longreach.engine.card import Bound, Card
    from longreach.evaluate.gate.material import Asked


def measure_reuse(settings: Settings, specs: Sequence[str], prompts: int, *, own_library: bool, as_json: bool) -> None:
    """Measure the model of `settings` in each of the ways `specs` (none: all), write its card and show it."""
    from longreach.cli.ask import make_engine
    from longreach.engine.card import Bound, card_file
    from longreach.engine.gate import cheapest
    from longreach.engine.paged import PagedEngine
    from longreach.engine.ways import tried, ways
    from longreach.evaluate.gate.measure import measure

    for spec in specs:
        ways.make(spec)  # a word that is none is told before anything is loaded
    asked, material = material_for(settings, prompts, own_library)
    engine = make_engine(settings.model_copy(update={"reuse": "off"}))
    if not isinstance(engine, PagedEngine):
        raise UnsupportedError(f"{engine.model} is a server: what it reuses cannot be measured from here")
    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None)
        card = measure(
            engine,
            asked,
            specs or tried(),
            settings,
            material,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    file = card_file(settings.cache, card.weights, card.fingerprint)
    card = with_others(card, file)
    card.save(file)
    bound = Bound(settings.reuse_kl, settings.reuse_agreement)
    taken = cheapest(engine, card, bound)
    if as_json:
        print_json({**asdict(card), "bound": asdict(bound), "taken": taken, "file": str(file)})
        return
    show_card(card, bound, taken)
    note(f"the card: {shown_path(str(file))}")


def with_others(card: Card, file: Path) -> Card:
    """A card with what was measured before, of other ways, with the same prompts."""
    from longreach.engine.card import Card
    from longreach.evaluate.gate.material import BUILT_IN

    try:
        before = Card.load(file)
    except ModelError:
        return card
    if (before.material, before.prompts) != (card.material, card.prompts) or card.material != BUILT_IN:
        return card
    measured = {one.way for one in card.ways}
    return replace(card, ways=(*card.ways, *(one for one in before.ways if one.way not in measured)))


def show_card(card: Card, bound: Bound, taken: str) -> None:
    """The card as a table, the way that is taken marked: the same likeliest token is counted where the exact run is
    sure of it, and the first token comes so many times as soon."""
    table = Table(title=f"What reuse costs {card.model}, against reading {card.prompts} prompts as a whole")
    for name in ("way", "mean KL", "to", "same token", "same answer", "first token", "in bound"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for one in card.ways:
        table.add_row(
            f"[bold]{one.way}[/] ←" if one.way == taken else one.way,
            f"{one.kl:.4f}",
            f"{one.kl_high:.4f}",
            "-" if one.agreement is None else f"{one.agreement:.4f}",
            f"{one.answers:.2f}",
            f"{1 / one.ttft:.1f} ×",
            "yes" if one.within(bound) else "no",
        )
    out.print(table)
    moved = "its keys cannot be moved" if card.relocation is None else f"moved text: KL {card.relocation:.1g} at worst"
    out.print(
        f"{card.tokens:,} tokens of answers, {card.sure:,} of them sure; {moved}; {card.dtype} on "
        f"{card.device}. Bound: KL at most {bound.kl:g}, at least {bound.agreement:g} the same. From now on: {taken}."
    )


def material_for(settings: Settings, prompts: int, own_library: bool) -> tuple[list[Asked], str]:
    """What a model is asked when it is measured, and a name for it."""
    from longreach.evaluate.gate.material import BUILT_IN, built_in, of_library, spread_out

    if not own_library:
        return spread_out(built_in(), prompts), BUILT_IN
    with open_library(settings) as library, err.status("[dim]making questions[/]"):
        return of_library(library, prompts), "library"
