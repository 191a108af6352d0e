"""An example as what a model reads: instructions, context, question, in parts that can be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from longreach.evaluate.metrics.answers import ANSWER_METRICS
from longreach.evaluate.tasks import Example, Question

if TYPE_CHECKING:
    from longreach.engine import Prompt

Form: TypeAlias = Literal["text", "chat"]
"""`text` is gone on with, from "Answer:" and the question's lead; `chat` is put into the model's chat template."""
SEPARATOR = "\n\n"
STOPS = ("\n\n", "\nQuestion:")
"""Where an answer in the form `text` ends at the latest."""


def parts(example: Example, number: int = 0) -> list[str]:
    """The prompt of question `number` in the form `text`, in parts that give it when joined: the instructions, each
    segment of the context, then the question. In the mode `multi_turn` the questions before it stand there too, with
    the right answers."""
    shared = [part + SEPARATOR for part in (example.instructions, *example.context) if part]
    earlier = example.questions[:number] if example.mode == "multi_turn" else ()
    turns = [f"{_asked(question)} {ideal(question)}{SEPARATOR}" for question in earlier]
    return [*shared, *turns, _asked(example.questions[number])]


def prompt(example: Example, number: int = 0, form: Form = "text") -> Prompt:
    """What a model is given for question `number`."""
    if form == "text":
        return "".join(parts(example, number))
    from longreach.engine import Message

    context = SEPARATOR.join(part for part in (example.instructions, *example.context) if part)
    earlier = example.questions[:number] if example.mode == "multi_turn" else ()
    asked = [question.text for question in (*earlier, example.questions[number])]
    asked[0] = f"{context}{SEPARATOR}{asked[0]}" if context else asked[0]
    messages = [Message("user", asked[0])]
    for question, text in zip(earlier, asked[1:], strict=True):
        messages += [Message("assistant", ideal(question)), Message("user", text)]
    return messages


def ideal(question: Question) -> str:
    """The perfect answer."""
    return ANSWER_METRICS[question.metric].ideal(question.answers)


def _asked(question: Question) -> str:
    lead = f" {question.lead}" if question.lead else ""
    return f"Question: {question.text}\nAnswer:{lead}"
