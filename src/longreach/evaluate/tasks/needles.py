"""The needles of the `niah` tasks: a code for each key, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from longreach.evaluate.tasks import Question
from longreach.evaluate.vocabulary import ValueKind

INSTRUCTIONS = (
    "Somewhere in the text below, secret codes are given. Remember them: you will be asked for them afterwards."
)
_TOKENS = {"numbers": 12, "words": 12, "uuids": 40}


def needle(key: str, value: str) -> str:
    """The sentence that tells a code."""
    return f"The secret code of the {key} is {value}."


def asked(keys: Sequence[str], answers: Sequence[str], gold: Sequence[int], kind: ValueKind, each: int) -> Question:
    """Asks for the codes of `keys`, each of which has `each`."""
    shown = keys[0] if len(keys) == 1 else f"{', the '.join(keys[:-1])} and the {keys[-1]}"
    if len(keys) == each == 1:
        text, lead = f"What is the secret code of the {shown}?", f"The secret code of the {shown} is"
    elif len(keys) == 1:
        text, lead = f"What are all the secret codes of the {shown}?", f"The secret codes of the {shown} are"
    else:
        text, lead = f"What are the secret codes of the {shown}?", f"The secret codes of the {shown} are"
    room = 16 + _TOKENS[kind] * len(answers)
    return Question(text, tuple(answers), "all_answers", room, lead, tuple(gold))
