"""A model of which nothing is in memory but its tokenizer."""

from __future__ import annotations

from pathlib import Path

from longreach.engine.engine import Stream
from longreach.engine.requests import Prompt, Sampling
from longreach.engine.text_engine import TextEngine
from longreach.engine.texts import Texts
from longreach.errors import UnsupportedError
from longreach.model.fingerprint import fingerprint
from longreach.model.load import files_of, tokenizer_of
from longreach.model.shapes import KVShape, kv_shape


class UnloadedEngine(TextEngine):
    """Says how prompts would be read, and answers none. `shape` is what the model's files tell of it, `files` their
    fingerprint. Raises as `kv_shape` and `tokenizer_of` do."""

    def __init__(self, name: str, cache: Path) -> None:
        self.shape: KVShape = kv_shape(name, cache)
        self.model = name
        self.context_length = self.shape.context_length
        self.parameters = self.shape.parameters
        self.end_tokens = frozenset()
        tokenizer = tokenizer_of(name, cache)
        self.texts = Texts(tokenizer, max(tokenizer.get_vocab().values()) + 1)
        self.files = fingerprint(files_of(name, cache))

    @property
    def apart(self) -> bool:
        return True

    def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
        raise UnsupportedError(f"{self.model} is not loaded: it cannot answer")
