"""Libraries for tests: an encoder and a token counter that need no model, quick, and the same everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from longreach.library import Library


@dataclass
class HashingEncoder:
    """Every word adds 1 to the place its hash names. `seen` keeps the texts that were embedded as documents."""

    name: str = "hashing"
    fingerprint: str = "hashing/64"
    dim: int = 64
    seen: list[str] = field(default_factory=list)

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.seen += texts
        return self.embed_queries(texts)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.full((len(texts), self.dim), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=4).digest()
                vectors[row, int.from_bytes(digest, "big") % self.dim] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def count_words(text: str) -> int:
    return len(text.split())


def open_hashed(path: Path, **options: object) -> Library:
    """The library at `path`, made where it is not there yet."""
    given = {"create": True, "encoder": HashingEncoder(), "chunker": "fixed(tokens=20)", "count": count_words}
    return Library.open(path, **{**given, **options})  # type: ignore[arg-type]


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Library]:
    """Opens the library of this test."""
    return lambda **options: open_hashed(tmp_path / "notes.library", **options)
