"""Where an engine keeps the passages that it has read. Imported only where a model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from longreach.config import Settings
from longreach.kv.codec import Codec, CodecError, Ladder, Profile, codecs, decode, make, takes_profile
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.identity import kv_fingerprint
from longreach.model.load import LoadedModel
from longreach.registry import canonical

CODEC = "int8(group=64)"
"""Half the bytes of 16 bits; answers are those of 16 bits (`bench/codec.py`)."""
HOST_BYTES = 512 << 20
EIGHT = "int8_pages"
"""The codec that loses nothing of pages of 8 bits, in as many bytes."""
PROFILES = "codecs"
"""In the cache."""


@dataclass(frozen=True)
class Fitted:
    """`passages` in a codec that was fitted to the model, with this `ladder`; what opens prompts in `opening`: all that
    follows attends to it, to the first token above all, and what an error there does was not measured."""

    passages: Codec
    opening: Codec
    ladder: Ladder

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        return (self.passages if start else self.opening).encode(keys, values, start)

    def decode(self, data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        return decode(data, ladder=self.ladder)


def open_store(
    loaded: LoadedModel, settings: Settings, kept: torch.dtype, report: Callable[[str], None] | None = None
) -> KVStore:
    """The store of a model whose keys and values lie in pages as `kept`. `report` is told where the codec of `settings`
    was not fitted to the model yet, so that another is taken. Raises SpecError for one that is not known."""
    fingerprint = kv_fingerprint(loaded, str(kept))
    settings = settings.model_copy(update={"codec": codec_of(settings, kept)})
    codec = find_codec(settings, fingerprint, loaded.device)
    if codec is None and report is not None:
        report(
            f"{settings.codec} was never fitted to {loaded.name}: passages are kept as {CODEC}; "
            f"`longreach doctor {loaded.name} --codec '{settings.codec}'` fits it, and tells what it costs"
        )
    return KVStore.open(
        settings.kv_store,
        fingerprint=fingerprint,
        codec=codec or Named(CODEC, make(CODEC, device=loaded.device)),
        host_bytes=HOST_BYTES,
        disk_bytes=int(settings.store_gb * 1e9),
        model=loaded.name,
    )


def codec_of(settings: Settings, kept: torch.dtype) -> str:
    """The spec of the codec for keys and values that lie in pages as `kept`: that of `settings`; where nobody set one
    and they are kept in 8 bits, the one that writes those."""
    return EIGHT if kept == torch.int8 and "codec" not in settings.model_fields_set else settings.codec


def find_codec(settings: Settings, fingerprint: str, device: torch.device | str = "cpu") -> Named | None:
    """The codec of `settings` for the model with this fingerprint; None for one that must be fitted to it and is not,
    or whose profile is damaged. What it wrote with another profile it is never given. Raises SpecError."""
    if not takes_profile(settings.codec):
        plain = make(settings.codec, device=device)
        return Named(canonical(codecs, plain), plain)
    try:
        profile = Profile.load(profile_file(settings.cache, fingerprint), fingerprint)
    except CodecError:
        return None
    fitted = profile.make(settings.codec, device)
    return Named(f"{canonical(codecs, fitted)} {profile.ladder.id}", Fitted(fitted, make(CODEC), profile.ladder))


def profile_file(cache: Path, fingerprint: str) -> Path:
    """Where the profile of a model lies."""
    return cache / PROFILES / f"{fingerprint}.profile"
