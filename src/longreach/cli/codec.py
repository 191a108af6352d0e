"""`longreach doctor MODEL --codec SPEC`: fit a codec to a model, and say what it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import track
from rich.table import Table

from longreach.cli.common import err, note, out, print_json, shown_path
from longreach.config import Settings
from longreach.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from longreach.evaluate.codecs.case import Case
    from longreach.evaluate.codecs.cost import Cost
    from longreach.kv.codec import Codec
    from longreach.model.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Told:
    """What one codec costs: bytes a token, mean `kl` in nats over the tokens of the exact answers, the share `agreed`
    of those of which the exact run is sure that stay the likeliest (None: it is sure of none)."""

    codec: str
    bytes_per_token: float
    kl: float
    agreed: float | None


def fit_codec(settings: Settings, prompts: int, *, own_library: bool, as_json: bool) -> None:
    """Fit the codec of `settings` to its model with one half of the prompts, keep the profile, and show what the codec
    costs the answers of the other half, beside the default one. Raises SpecError, InputError for too few prompts."""
    from longreach.cli.ask import make_engine
    from longreach.cli.gate import material_for
    from longreach.engine.gate import fingerprint_of
    from longreach.engine.paged import PagedEngine
    from longreach.engine.stores import CODEC, origin_of, profile_file
    from longreach.evaluate.codecs.case import read, spans_of
    from longreach.evaluate.codecs.fit import fit_profile
    from longreach.evaluate.gate.prompts import askings
    from longreach.kv.codec import make, takes_profile

    spec = settings.codec
    make(spec)  # a word that is none is told before anything is loaded
    asked, material = material_for(settings, prompts, own_library)
    engine = make_engine(settings.model_copy(update={"reuse": "off"}))
    if not isinstance(engine, PagedEngine):
        raise UnsupportedError(f"{engine.model} is a server: what it keeps cannot be encoded from here")
    found = askings(engine, asked)
    if len(found) < 2:
        raise InputError("too few prompts to fit with one half and measure with the other: give --prompts 2 or more")
    reading = track(found, "reading", console=err, transient=True)
    cases = [read(engine.loaded, *spans_of(one.parts)) for one in reading]
    codecs = {CODEC: make(CODEC), spec: make(spec)}
    file = None
    if takes_profile(spec):
        fingerprint = fingerprint_of(engine)
        with err.status("[dim]fitting[/]"):
            fitted = fit_profile(engine.loaded, engine.bridge.rotations, cases[::2], fingerprint)
            loaded = engine.loaded
            profile = replace(fitted, origin=origin_of(loaded.fingerprint, loaded.dtype, engine.pool.keys.dtype))
        file = profile_file(settings.cache, fingerprint)
        profile.save(file)
        codecs[spec] = profile.make(spec)
    told = [_told(name, cost) for name, cost in _costs(engine.loaded, cases[1::2], codecs).items()]
    size = None if file is None else file.stat().st_size
    if as_json:
        rows = [asdict(one) for one in told]
        print_json(
            {"model": engine.model, "material": material, "codecs": rows, "file": file and str(file), "bytes": size}
        )
        return
    _show(engine.model, told, len(cases[1::2]))
    if file is not None:
        note(f"its profile, {file.stat().st_size / 1e6:.1f} MB: {shown_path(str(file))}")
    note(f'codec = "{spec}" in the settings keeps passages so from now on')


def _costs(loaded: LoadedModel, cases: list[Case], codecs: dict[str, Codec]) -> dict[str, Cost]:
    from longreach.evaluate.codecs.cost import Cost, add_case

    costs = {name: Cost() for name in codecs}
    for case in track(cases, "measuring", console=err, transient=True):
        add_case(loaded, case, codecs, costs)
    return costs


def _told(name: str, cost: Cost) -> Told:
    return Told(name, round(cost.bytes_per_token, 1), round(mean(cost.kl), 5), mean(cost.sure) if cost.sure else None)


def _show(model: str, told: list[Told], prompts: int) -> None:
    table = Table(title=f"What codecs cost {escape(model)}, in the answers to {prompts} prompts")
    for name in ("codec", "bytes a token", "mean KL", "same token where sure"):
        table.add_column(name, justify="left" if name == "codec" else "right")
    for one in told:
        same = "-" if one.agreed is None else f"{one.agreed:.3f}"
        table.add_row(escape(one.codec), f"{one.bytes_per_token:,.0f}", f"{one.kl:.4f}", same)
    out.print(table)
