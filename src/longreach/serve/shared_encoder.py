"""One encoder for all libraries that were made with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from longreach.library.embed import Embedder

if TYPE_CHECKING:
    from longreach.library.embed import Vectors


@dataclass
class SharedEncoder:
    """The encoder called `name`, loaded by `load` when it is first needed, once."""

    name: str
    load: Callable[[], Embedder]
    _lock: Lock = field(default_factory=Lock, repr=False)

    @cached_property
    def _loaded(self) -> Embedder:
        return self.load()

    @property
    def fingerprint(self) -> str:
        return self._own().fingerprint

    @property
    def dim(self) -> int:
        return self._own().dim

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._own().embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._own().embed_queries(texts)

    def _own(self) -> Embedder:
        with self._lock:
            return self._loaded
