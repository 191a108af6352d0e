"""Which keys and values a model in memory makes: a name for the numbers it computes with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
import xxhash

from longreach.model.load import LoadedModel

_VERSION = "longreach-kv-1"
_PART = 64 << 20
"""Bytes that are summed up at once on a device."""
_ASIDE = {"_name_or_path", "transformers_version", "architectures", "torch_dtype"}
"""What a configuration says that changes no number."""


def kv_fingerprint(loaded: LoadedModel, *more: str) -> str:
    """32 hexadecimal digits, the same for models that make the same keys and values of the same tokens.

    Every weight counts, in the dtype in which it lies in memory: names, shapes and a hash of all bytes, together with
    the configuration. So a file that was replaced under its name, an adapter and another dtype each give another
    fingerprint, and a copy at another place gives the same. Take it when the model is loaded, before its quick form.
    The tokenizer does not count: entries are found by token ids. `more` names what else changes the numbers, such as
    products in 8 bits.

    On a processor all weights are read once, with XXH3; on a device two sums of their bits are taken there.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = {key: value for key, value in loaded.model.config.to_dict().items() if key not in _ASIDE}
    for text in (_VERSION, json.dumps(config, sort_keys=True, default=str), str(len(more)), *more):
        _add(digest, text.encode("utf-8", "surrogatepass"))
    for name, weight in _weights(loaded.model):
        _add(digest, f"{name} {list(weight.shape)} {weight.dtype}".encode())
        _add(digest, _hashed(weight) if weight.device.type == "cpu" else _summed(weight))
    return digest.hexdigest()


def _weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter once, and what is saved beside them."""
    yield from sorted(model.named_parameters())
    saved = set(model.state_dict())
    yield from sorted((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def _hashed(weight: torch.Tensor) -> bytes:
    held = weight.detach().contiguous().view(-1).view(torch.uint8)
    return xxhash.xxh3_128_digest(held.numpy().data) if held.numel() else b""


def _summed(weight: torch.Tensor) -> bytes:
    """Sums, modulo 2**64, of the words of a weight, and of the words times odd numbers that tell where they stand."""
    held = weight.detach().contiguous().view(-1).view(torch.uint8)
    wide = next(kind for kind in (torch.int32, torch.int16, torch.uint8) if held.numel() % kind.itemsize == 0)
    words = held.view(wide)
    plain, placed = 0, 0
    for first in range(0, len(words), _PART // wide.itemsize):
        part = words[first : first + _PART // wide.itemsize].long()
        places = torch.arange(first, first + len(part), device=part.device)
        plain += int(part.sum())
        placed += int((part * (places * 0x1E3779B97F4A7C16 + 1)).sum())
    return b"".join((total % 2**64).to_bytes(8, "little") for total in (plain, placed))


def _add(digest: hashlib.blake2b, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "little") + part)
