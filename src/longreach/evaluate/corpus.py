"""What tells a task's corpus from others, and where its library is kept between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from longreach.config import Settings
from longreach.types import Document, DocumentInfo


def corpus_folder(settings: Settings, documents: Sequence[Document]) -> Path:
    """A folder in the cache that belongs to these documents, cut and embedded as the settings say."""
    digest = hashlib.sha256(f"{settings.chunker}\n{settings.encoder}".encode())
    for document in documents:
        digest.update(f"{document.id}\n{len(document.text)}\n{document.text}".encode())
    return settings.cache / "evaluation" / f"{digest.hexdigest()[:16]}.library"


def corpus_digest(documents: Sequence[DocumentInfo]) -> str:
    """What tells the documents of a library from others, whatever their order."""
    each = sorted(f"{document.id}\n{document.content_hash}" for document in documents)
    return hashlib.sha256("\n".join(each).encode()).hexdigest()[:16]
