"""The model writes the answer; every claim that the passages do not support is taken out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from longreach.answer import Draft, answerers
from longreach.answer.support import support
from longreach.context.assemble import assemble_chat
from longreach.engine import Engine, Prompt
from longreach.types import Passage


@answerers.register("generate")
@dataclass(frozen=True)
class Generate:
    """Decode greedily (or at `temperature`), at most `max_tokens`, then keep the sentences that a passage supports."""

    max_tokens: int = 128
    temperature: float = 0.0
    seed: int | None = None

    def overhead(self, question: str, engine: Engine) -> int:
        return engine.count("".join(message.content for message in assemble_chat(question, []))) + 16 + self.max_tokens

    def prompt(self, question: str, passages: Sequence[str], engine: Engine) -> Prompt:
        return assemble_chat(question, passages)

    def answer(self, question: str, passages: Sequence[Passage], engine: Engine) -> Generator[str, None, Draft]:
        prompt = assemble_chat(question, [passage.text for passage in passages])
        with engine.stream(prompt, max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed) as stream:
            for piece in stream:
                if piece.text:
                    yield piece.text
            completion = stream.completion
        text, quotes = support(completion.text, question, passages)
        return Draft(text, quotes, completion.usage)
