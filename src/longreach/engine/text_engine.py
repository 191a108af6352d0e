"""What engines have in common that know their model's tokens themselves."""

from __future__ import annotations

from collections.abc import Sequence

from longreach.engine.engine import Engine
from longreach.engine.requests import Part, Prompt
from longreach.engine.texts import Texts


class TextEngine(Engine):
    """An engine with the tokenizer of its model, in `texts`."""

    texts: Texts

    @property
    def apart(self) -> bool:
        """Whether the passages of a prompt are parts by themselves."""
        return self.keeps_passages

    def count(self, text: str) -> int:
        return self.texts.count(text)

    def tokenize(self, text: str) -> list[int]:
        return self.texts.tokenize(text)

    def encode(self, prompt: Prompt) -> list[int]:
        return [token for part in self.parts(prompt) for token in part.token_ids]

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.texts.decode(token_ids)

    def parts(self, prompt: Prompt) -> list[Part]:
        """A prompt by its token ids, passages as parts where they are `apart`. Raises InputError for an empty
        one."""
        return self.texts.parts(prompt, apart=self.apart)
