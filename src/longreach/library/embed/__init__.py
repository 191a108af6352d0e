"""Encoders: texts to dense vectors. `load_encoder("embedded")` is quick to start; any other name goes to
sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors whose inner product tells how alike they are."""

    @property
    def name(self) -> str:
        """What `load_encoder` was asked for."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors may: vectors of different fingerprints must not be compared."""
        ...

    @property
    def dim(self) -> int:
        """The length of a vector."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """`[texts, dim]` float32 of unit norm."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """As `embed_documents`, with the encoder's own prefix for questions where it has one."""
        ...


def load_encoder(name: str, *, cache: Path, device: str = "auto", offline: bool = False) -> Embedder:
    """The encoder called `name`: "embedded" (all-MiniLM-L6-v2, fetched once into `cache`), a Hugging Face id, a folder.

    Raises ModelError, and NetworkError where it must be fetched and cannot be.
    """
    if name == "embedded":
        from longreach.fetch import ensure
        from longreach.library.embed.minilm import MiniLM

        return MiniLM.load(ensure("encoder", cache=cache, offline=offline), device=device)
    from longreach.library.embed.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder.load(name, device=device, offline=offline)


__all__ = ["Embedder", "load_encoder"]
