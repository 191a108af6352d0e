"""What prompts are to a model: its tokenizer, apart from its weights, to be used where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longreach.engine.chat import chat_parts, encode_chat
from longreach.engine.requests import Message, Part, Prompt, check_prompt
from longreach.errors import InputError


@dataclass(frozen=True, slots=True)
class Texts:
    """Turns text into token ids and back by `tokenizer`, transformers' object; `vocabulary` is how many tokens the
    model knows. Can be pickled."""

    tokenizer: Any
    vocabulary: int

    def count(self, text: str) -> int:
        """See `Engine.count`."""
        return len(self.tokenize(text))

    def tokenize(self, text: str) -> list[int]:
        """See `Engine.tokenize`."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Engine.decode`."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(list(token_ids), **options))

    def parts(self, prompt: Prompt, *, apart: bool) -> list[Part]:
        """A prompt by its token ids, passages by themselves where they are read `apart`. Raises InputError for an empty
        one, and for a token that the model does not know."""
        check_prompt(prompt)
        if isinstance(prompt[0], Part):
            parts = [part for part in prompt if isinstance(part, Part)]
            if not any(part.token_ids for part in parts):
                raise InputError("the prompt is empty")
            for part in parts:
                self._check_known(part.token_ids)
            return parts
        messages = [part for part in prompt if isinstance(part, Message)]
        if apart and any(message.passages for message in messages):
            return chat_parts(self.tokenizer, messages)
        return [Part(tuple(self._encode(prompt)))]

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            ids = list(self.tokenizer(prompt)["input_ids"])
        elif isinstance(prompt[0], Message):
            ids = encode_chat(self.tokenizer, [part for part in prompt if isinstance(part, Message)])
        else:
            ids = [part for part in prompt if isinstance(part, int)]
            self._check_known(ids)
        if not ids:
            raise InputError("the prompt is empty")
        return ids

    def _check_known(self, ids: Sequence[int]) -> None:
        wrong = next((at for at in ids if not 0 <= at < self.vocabulary), None)
        if wrong is not None:
            raise InputError(f"there is no token {wrong}: the vocabulary has {self.vocabulary}")
