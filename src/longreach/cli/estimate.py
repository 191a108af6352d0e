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
    from longreach.library import Library


@dataclass(frozen=True, slots=True)
class Estimate:
    """`bytes` is about what the KV of `chunks` different chunks with `tokens` tokens takes on disk, for `model` in
    `dtype`, written by `codec`; `skipped` counts files that cannot be read."""

    model: str
    dtype: str
    codec: str
    chunks: int
    tokens: int
    bytes_per_token: float
    bytes: int
    skipped: int


def show_estimate(settings: Settings, paths: Sequence[Path], chunker: str | None, *, as_json: bool) -> None:
    """Say what reading `paths` ahead would take. They are read and cut, and nothing is added. Raises ModelError where
    the model's configuration is not at hand."""
    from longreach.library import catalog
    from longreach.model.shapes import kv_shape

    shape = kv_shape(settings.model, settings.cache)
    with TemporaryDirectory(prefix="longreach-") as aside:
        known = (settings.library.expanduser() / catalog.FILE).exists()
        place = settings if known else settings.model_copy(update={"library": Path(aside) / "estimate.library"})
        with open_library(place, create=not known, chunker=chunker) as library:
            chunks, tokens, skipped = _cut(library, paths)
    import torch

    from longreach.engine.stores import codec_of
    from longreach.kv.codec import make
    from longreach.kv.store.estimate import disk_bytes
    from longreach.model.device import choose_device, choose_dtype, choose_kv_dtype

    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device, shape.weight_bytes)
    kept = choose_kv_dtype(settings.kv_dtype, dtype, settings.dtype != "auto" or device.type != "cpu")
    codec = codec_of(settings, kept)
    numbers = kept if kept.is_floating_point else torch.float32  # of 8 bits, they are written as numbers
    per_token = make(codec).bytes_per_token(shape, numbers, max(1, tokens // max(1, chunks)))
    size = disk_bytes(chunks, tokens, per_token)
    name = str(kept).removeprefix("torch.")
    told = Estimate(settings.model, name, codec, chunks, tokens, per_token, size, skipped)
    if as_json:
        print_json(asdict(told))
        return
    if skipped:
        note(f"  {skipped:,} files cannot be read and are left out")
    out.print(
        f"Reading {chunks:,} chunks ({tokens:,} tokens) ahead with {escape(told.model)} in {name} would take "
        f"{size / 1e6:,.1f} MB on disk ({escape(codec)}, {per_token:,.0f} bytes a token). Nothing was done."
    )


def _cut(library: Library, paths: Sequence[Path]) -> tuple[int, int, int]:
    """Different chunks, their tokens, and files that cannot be read."""
    from longreach.corpus import files, load
    from longreach.library.identity import text_key

    walk = files.walk(paths)
    seen: dict[object, int] = {}
    skipped = len(walk.skipped)
    for candidate in track(walk.candidates, "cutting", console=err, transient=True):
        try:
            document = load.load(candidate.path)
        except DocumentError:
            skipped += 1
            continue
        seen.update((text_key(text), tokens) for text, tokens in library.cut(document))
    return len(seen), sum(seen.values()), skipped
