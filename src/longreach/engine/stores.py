"""Where an engine keeps the passages that it has read. Imported only where a model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

from longreach.config import Settings
from longreach.kv.codec import (
    Codec,
    CodecError,
    Ladder,
    Opened,
    Profile,
    codecs,
    make,
    open_any,
    takes_profile,
)
from longreach.kv.coding import CODINGS
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.identity import kv_fingerprint
from longreach.model.load import LoadedModel
from longreach.registry import canonical

CODEC = "int8(group=64)"
"""Half the bytes of 16 bits; answers are those of 16 bits (`bench/codec.py`)."""
HOST_BYTES = 512 << 20
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

    def open(self, data: bytes) -> Opened:
        return open_any(data, ladder=self.ladder)


def open_store(
    loaded: LoadedModel, settings: Settings, kept: torch.dtype, report: Callable[[str], None] | None = None
) -> KVStore:
    """The store of a model whose keys and values lie in pages as `kept`. `report` is told where the codec of `settings`
    was not fitted to the model yet, so that another is taken. Raises SpecError for one that is not known."""
    if loaded.device.type == "cpu":
        import_module("longreach.kv.codec.numba_grouped")  # it is compiled now, and not while somebody waits for a load
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
    and they are kept in few bits, the one that loses nothing of those, in as many bytes."""
    plain = kept not in CODINGS or "codec" in settings.model_fields_set
    return settings.codec if plain else f"{CODINGS[kept].name}_pages"


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


@dataclass(frozen=True)
class Expected:
    """The codec that an engine would write passages and what opens prompts by: as `spec`, not yet for any model."""

    spec: str
    passages: Codec
    opening: Codec


def expected_codec(settings: Settings, kept: torch.dtype, origin: str) -> Expected:
    """The codec of `settings` for a model that is not loaded, whose files and numbers are those of `origin`
    (`origin_of`); where it must be fitted and is not, the one that is taken instead. Raises SpecError."""
    spec, default = codec_of(settings, kept), make(CODEC)
    if not takes_profile(spec):
        plain = make(spec)
        return Expected(spec, plain, plain)
    profile = Profile.find(settings.cache / PROFILES, origin)
    return Expected(CODEC, default, default) if profile is None else Expected(spec, profile.make(spec), default)


def origin_of(files: str, dtype: torch.dtype, kept: torch.dtype) -> str:
    """What a profile was fitted to, as it can be told without weights in memory: the fingerprint of the model's files
    (`longreach.model.fingerprint`), what it computes in and what keys and values are kept in."""
    return f"{files} {dtype} {kept}"


def profile_file(cache: Path, fingerprint: str) -> Path:
    """Where the profile of a model lies."""
    return cache / PROFILES / f"{fingerprint}.profile"
