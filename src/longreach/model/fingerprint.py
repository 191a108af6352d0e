"""A short name for exactly these weights, with this configuration and tokenizer."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 4096
_BLOCKS = 64


def fingerprint(path: Path) -> str:
    """32 hexadecimal digits for a model folder or file.

    Configuration and tokenizer are read whole. Of each file of weights the size and 64 blocks of 4 KiB, spread evenly
    from its start to its end, are read: training moves every weight, so two checkpoints differ there, and 100 GB are
    read no slower than 1 MB. It tells models apart; it does not prove that a file is undamaged.
    """
    digest = hashlib.sha256()
    if path.is_file():
        _sample(path, digest)
        return digest.hexdigest()[:32]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        file = path / name
        digest.update(name.encode() + (file.read_bytes() if file.is_file() else b""))
    for file in sorted(path.glob("*.safetensors")):
        digest.update(file.name.encode())
        _sample(file, digest)
    return digest.hexdigest()[:32]


def _sample(file: Path, digest: hashlib._Hash) -> None:
    size = file.stat().st_size
    digest.update(str(size).encode())
    last = max(size - _BLOCK, 0)
    with file.open("rb") as stream:
        for at in sorted({last * part // (_BLOCKS - 1) for part in range(_BLOCKS)}):
            stream.seek(at)
            digest.update(stream.read(_BLOCK))
