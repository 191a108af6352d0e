"""Counting tokens as the answering model would, from a `tokenizer.json` alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longreach.errors import ModelError
from longreach.types import TokenCounter

if TYPE_CHECKING:
    import tokenizers


class Tokenizer:
    """A `TokenCounter` over a Hugging Face tokenizer. Special tokens are not counted, nothing is cut off or padded."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`. Raises ModelError when it is missing or damaged."""
        import tokenizers

        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception for all that can be wrong with the file
            raise ModelError(f"the tokenizer {path} cannot be read: {error}") from None

    def __call__(self, text: str) -> int:
        return len(self.backend.encode(text, add_special_tokens=False))

    def many(self, texts: Sequence[str]) -> list[int]:
        """The count of each text; much quicker than one call a text."""
        counts: list[int] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            counts += map(len, self.backend.encode_batch_fast(batch, add_special_tokens=False))
        return counts


_BATCH = 4096
"""Texts encoded at a time: enough to keep every core busy, few enough that their encodings fit in memory."""


def count_many(count: TokenCounter, texts: Sequence[str]) -> list[int]:
    """The token count of each text, in one go where the counter has a method `many(texts)`."""
    many = getattr(count, "many", None)
    return list(many(texts)) if many is not None else [count(text) for text in texts]
