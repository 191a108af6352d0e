"""An answer in the eyes of a model: any engine may judge, the one that answered had better not.

After Zheng et al. 2023 (arXiv 2306.05685), with the reference answers in view and a verdict of one word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longreach.engine import Engine

_TASK = (
    "You grade answers. Say whether the given answer means the same as one of the reference answers, as far as the "
    "question goes. Wording and length do not matter; a wrong or missing fact does. Reply with one word: yes or no."
)
_VERDICT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Judge:
    """Asks `engine` for a verdict on each answer; greedy, so that the same answer gets the same one."""

    engine: Engine
    max_tokens: int = 8

    def score(self, question: str, text: str, references: Sequence[str]) -> float | None:
        """1 where the judge says yes, 0 where it says no, None where its reply is neither. An empty answer is wrong
        without asking. Raises what the engine does."""
        from longreach.engine import Message

        if not text.strip():
            return 0.0
        shown = "\n".join(f"- {reference}" for reference in references)
        asked = f"Question: {question}\n\nReference answers:\n{shown}\n\nGiven answer: {text.strip()}\n\nVerdict:"
        conversation = [Message("system", _TASK), Message("user", asked)]
        reply = self.engine.generate([conversation], max_tokens=self.max_tokens)[0]
        verdict = _VERDICT.search(reply.text)
        return None if verdict is None else float(verdict[1].lower() == "yes")
