"""Any published encoder, through sentence-transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreach.errors import ModelError

if TYPE_CHECKING:
    from longreach.library.embed import Vectors


@dataclass
class SentenceTransformerEmbedder:
    """A Hugging Face id or a folder. Questions and documents get the prefixes the model's own settings give them."""

    name: str
    dim: int
    fingerprint: str
    _model: Any = field(repr=False)

    @classmethod
    def load(cls, name: str, device: str = "auto", offline: bool = False) -> SentenceTransformerEmbedder:
        """Raises ModelError where there is no such model or it cannot be read."""
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(name, device=None if device == "auto" else device, local_files_only=offline)
            dim = int(model.get_embedding_dimension() or 0)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"the encoder {name!r} cannot be loaded: {first}") from error
        folder = Path(name)
        return cls(name, dim, _fingerprint(folder) if folder.is_dir() else f"{name}/{dim}", model)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """`[texts, dim]`."""
        return self._encode(self._model.encode_document, texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """`[texts, dim]`."""
        return self._encode(self._model.encode_query, texts)

    def _encode(self, encode: Any, texts: Sequence[str]) -> Vectors:
        import numpy as np

        if not texts:
            return np.zeros((0, self.dim), np.float32)
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return np.asarray(encode(clean, normalize_embeddings=True, show_progress_bar=False), np.float32)


def _fingerprint(folder: Path) -> str:
    """Of names, sizes and first mebibytes of the files in `folder`: enough to tell two models apart, quick to take."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".bin"}:
            digest.update(f"{path.relative_to(folder)}:{path.stat().st_size}".encode("utf-8", "surrogateescape"))
            with path.open("rb") as file:
                digest.update(file.read(1 << 20))
    return digest.hexdigest()
