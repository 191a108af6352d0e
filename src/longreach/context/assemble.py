"""The grounded prompt: instructions, passages in their order, the question last.

What changes least stands first, so that questions over the same passages share the longest prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

from longreach.engine import Message
from longreach.types import Passage

INSTRUCTIONS = "Answer the question with a short phrase taken from the passages."


def assemble(question: str, passages: Sequence[Passage], instructions: str = INSTRUCTIONS) -> list[Message]:
    """The conversation that asks `question` over `passages`."""
    shown = "\n\n".join(f"[{passage.number}] {passage.text}" for passage in passages)
    return [Message("system", instructions), Message("user", f"{shown}\n\nQuestion: {question}\nAnswer:")]
