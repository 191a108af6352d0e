"""What reading ahead would take, before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import track

from longreach.cli.common import err, note, open_library, out, print_json
from longreach.config import Settings
from longreach.errors import DocumentError

if TYPE_CHECKING:
    from longreach.engine.reckoning import Reckoning
    from longreach.engine.unloaded import UnloadedEngine
    from longreach.reader import Reader


@dataclass(frozen=True, slots=True)
class Estimate:
    """`bytes` is about what the KV of `chunks` different chunks takes on disk for `model` in `dtype`: that of their
    `tokens`, for which `codec` takes `bytes_per_token`, and that of the tokens `beside` them, which stand before
    passages in prompts and are kept once. `skipped` counts files that cannot be read."""

    model: str
    dtype: str
    codec: str
    chunks: int
    tokens: int
    beside: int
    bytes_per_token: float
    bytes: int
    skipped: int


def show_estimate(settings: Settings, paths: Sequence[Path], chunker: str | None, *, as_json: bool) -> None:
    """Say what reading `paths` ahead would take. They are read and cut, and nothing is added. Raises ModelError where
    the model's configuration or its tokenizer is not at hand."""
    told = estimate(settings, paths, chunker)
    if as_json:
        print_json(asdict(told))
        return
    if told.skipped:
        note(f"  {told.skipped:,} files cannot be read and are left out")
    out.print(
        f"Reading {told.chunks:,} chunks ({told.tokens:,} tokens, and {told.beside:,} before them) ahead with "
        f"{escape(told.model)} in {told.dtype} would take {told.bytes / 1e6:,.1f} MB on disk ({escape(told.codec)}, "
        f"{told.bytes_per_token:,.0f} bytes a token). Nothing was done."
    )


def estimate(settings: Settings, paths: Sequence[Path], chunker: str | None) -> Estimate:
    """What an empty store would hold after reading `paths` ahead: to the per cent for codecs of fixed width. Those that
    code by entropy are taken to be as brief as where that was measured: `fisher` and `cachegen` are within 15 %,
    `ladder` only where the text is like that which it was fitted to, else it takes more.

    Prompts are put together as the reader does it, by the model's own tokenizer; its weights are not read. So the way
    of reuse that its card would choose is not known: with `reuse="auto"` passages are taken to be read right behind
    what opens the prompt, as all ways do that are measured unasked. Raises as `show_estimate`.
    """
    from longreach.engine.unloaded import UnloadedEngine
    from longreach.library import catalog
    from longreach.reader import Reader

    engine = UnloadedEngine(settings.model, settings.cache)
    with TemporaryDirectory(prefix="longreach-") as aside:
        known = (settings.library.expanduser() / catalog.FILE).exists()
        place = settings if known else settings.model_copy(update={"library": Path(aside) / "estimate.library"})
        with open_library(place, create=not known, chunker=chunker) as library:
            reader = Reader.configured(library, engine, settings)
            reckoning, skipped = _reckon(reader, engine, settings, paths)
    return _told(settings, engine, reckoning, skipped)


def _reckon(reader: Reader, engine: UnloadedEngine, settings: Settings, paths: Sequence[Path]) -> tuple[Reckoning, int]:
    """What would be kept, and how many files cannot be read."""
    from longreach.corpus import files, load
    from longreach.engine.reckoning import Reckoning
    from longreach.engine.ways import ways

    named = settings.reuse not in ("auto", "off")
    reckoning = Reckoning(ways.make(settings.reuse).filler(engine) if named else ())
    walk = files.walk(paths)
    skipped = len(walk.skipped)
    for candidate in track(walk.candidates, "cutting", console=err, transient=True):
        try:
            document = load.load(candidate.path)
        except DocumentError:
            skipped += 1
            continue
        for _, prompt in reader.prompts_ahead(document):
            reckoning.add(engine.parts(prompt))
    return reckoning, skipped


def _told(settings: Settings, engine: UnloadedEngine, reckoning: Reckoning, skipped: int) -> Estimate:
    import torch

    from longreach.engine.reckoning import tokens_of
    from longreach.engine.stores import expected_codec, origin_of
    from longreach.kv.coding import CODINGS, name_of
    from longreach.kv.store.estimate import OUTWARD_BYTES, disk_bytes, encoded_bytes
    from longreach.model.device import choose_device, choose_dtype, choose_kv_dtype

    shape, device = engine.shape, choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device, shape.weight_bytes)
    kept = choose_kv_dtype(settings.kv_dtype, dtype, settings.dtype != "auto" or device.type != "cpu")
    codec = expected_codec(settings, kept, origin_of(engine.files, dtype, kept))
    numbers = torch.float32 if kept in CODINGS else kept  # of few bits, they are written as numbers
    chunks, tokens = reckoning.passages.total(), tokens_of(reckoning.passages)
    noted = OUTWARD_BYTES if reckoning.filler else 0
    size = disk_bytes(reckoning.passages, codec.passages, shape, numbers, more_per_token=noted)
    size += disk_bytes(reckoning.fillers, codec.passages, shape, numbers)
    size += disk_bytes(reckoning.openings, codec.opening, shape, numbers)
    return Estimate(
        model=settings.model,
        dtype=name_of(kept),
        codec=codec.spec,
        chunks=chunks,
        tokens=tokens,
        beside=tokens_of(reckoning.openings) + tokens_of(reckoning.fillers),
        bytes_per_token=encoded_bytes(reckoning.passages, codec.passages, shape, numbers) / max(1, tokens),
        bytes=size,
        skipped=skipped,
    )
