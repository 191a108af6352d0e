"""Where the library of a task's corpus is kept between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from longreach.config import Settings
from longreach.types import Document


def corpus_folder(settings: Settings, documents: Sequence[Document]) -> Path:
    """A folder in the cache that belongs to these documents, cut and embedded as the settings say."""
    digest = hashlib.sha256(f"{settings.chunker}\n{settings.encoder}".encode())
    for document in documents:
        digest.update(f"{document.id}\n{len(document.text)}\n{document.text}".encode())
    return settings.cache / "evaluation" / f"{digest.hexdigest()[:16]}.library"
