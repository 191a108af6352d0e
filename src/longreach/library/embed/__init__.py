"""Encoders: texts to dense vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embedder(Protocol):
    """Turns texts into vectors whose inner product tells how alike they are."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`[texts, dim]` float32 of unit norm."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `embed_documents`, with the encoder's own prefix for questions where it has one."""
        ...
