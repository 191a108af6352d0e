"""The prompts that a model is measured with: those that it is given when it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from longreach.answer.rank_spans import RankSpans
from longreach.context.assemble import assemble_chat
from longreach.engine import Part
from longreach.engine.chat import chat_parts
from longreach.engine.paged import PagedEngine
from longreach.evaluate.gate.material import Asked
from longreach.plan import SMALL

Form: TypeAlias = Literal["examples", "chat"]
COUNTS = (4, 8)
"""Passages of a prompt."""
STOPS: dict[Form, tuple[str, ...]] = {"examples": ("\n",), "chat": ()}


@dataclass(frozen=True, slots=True)
class Asking:
    """A prompt in parts, so that it is the same tokens in whichever way it is read; `opening` has what opens it, and
    another passage."""

    form: Form
    parts: list[Part]
    opening: list[Part]

    @property
    def tokens(self) -> int:
        return sum(len(part.token_ids) for part in self.parts)

    @property
    def reusable(self) -> int:
        """How many of its tokens are passages'."""
        return sum(len(part.token_ids) for part in self.parts if part.passage)


def forms(engine: PagedEngine) -> list[Form]:
    """Those in which the model is asked: small models go on with examples, those with a chat template are spoken
    to."""
    chats = bool(engine.loaded.tokenizer.chat_template)
    found: list[Form] = [] if chats and engine.parameters >= SMALL else ["examples"]
    return [*found, "chat"] if chats else found


def askings(engine: PagedEngine, asked: Sequence[Asked]) -> list[Asking]:
    """A prompt for each question: forms and numbers of passages take turns. What the model's context does not hold is
    left out."""
    kinds = [(form, count) for count in COUNTS for form in forms(engine)]
    made = []
    for number, one in enumerate(asked):
        form, count = kinds[number % len(kinds)]
        parts = _parts(engine, form, one.question, one.some(count))
        made.append(Asking(form, parts, _parts(engine, form, "?", ["."])))
    return [one for one in made if one.tokens + ANSWER < engine.context_length]


ANSWER = 24
"""Tokens of an answer at most."""


def _parts(engine: PagedEngine, form: Form, question: str, passages: Sequence[str]) -> list[Part]:
    if form == "chat":
        return chat_parts(engine.loaded.tokenizer, assemble_chat(question, passages))
    return RankSpans().prompt(question, passages, engine)
