"""The grounded prompt: instructions or examples, the passages in their order, the question last.

What changes least stands first, so that questions share the longest prefix: its KV is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

from longreach.engine import Message

INSTRUCTIONS = "Answer the question in one or two short sentences, using only what the passages say."

EXAMPLES = (
    (
        "Casablanca (film)\nCasablanca is a 1942 American romantic drama film directed by Michael Curtiz. Humphrey "
        "Bogart stars as Rick Blaine, who runs a nightclub in Morocco, and Ingrid Bergman as Ilsa Lund, the "
        "woman he once loved.",
        "Who played rick in the movie casablanca?",
        "Humphrey Bogart",
    ),
    (
        "Golden Gate Bridge\nThe Golden Gate Bridge spans the strait between San Francisco Bay and the Pacific Ocean. "
        "Work on it began in January 1933, and it opened on May 27, 1937.",
        "When did the golden gate bridge open to the public?",
        "May 27, 1937",
    ),
    (
        "Human skeleton\nA newborn baby has around 270 bones. Many of them fuse as the child grows, so that the "
        "skeleton of an adult is made up of 206 bones.",
        "How many bones does an adult human have?",
        "206",
    ),
    (
        "Machu Picchu\nMachu Picchu is an Inca citadel of the 15th century on a mountain ridge in southern Peru, some "
        "2,430 metres above the sea. Hiram Bingham made it widely known in 1911.",
        "Where is machu picchu located?",
        "southern Peru",
    ),
    (
        "Lake Baikal\nLake Baikal is a rift lake in Siberia, Russia. With a greatest depth of 1,642 metres it is the "
        "deepest lake in the world, and it is home to the Baikal seal.",
        "What is the name of the deepest lake in the world?",
        "Lake Baikal",
    ),
    (
        "Penicillin\nPenicillin was discovered in 1928 by the Scottish scientist Alexander Fleming. It was first used "
        "widely to treat wounded soldiers during World War II.",
        "Who is credited with the discovery of penicillin?",
        "Alexander Fleming",
    ),
)
"""Passage, question, answer: what a small model needs to see to answer with a span and stop."""


def assemble_chat(question: str, passages: Sequence[str]) -> list[Message]:
    """A conversation that asks `question` over `passages`, for models that follow instructions."""
    shown = "".join(f"{text}\n\n" for text in passages)
    asked = Message("user", f"{shown}Question: {as_question(question)}", tuple(passages))
    return [Message("system", INSTRUCTIONS), asked]


def assemble_examples(question: str, passages: Sequence[str]) -> list[tuple[str, bool]]:
    """A text that goes on with the answer, for small models: examples, passages, question. In pieces, each to be turned
    into tokens by itself, so that it is the same tokens whatever stands around it; true says of a passage."""
    examples = "".join(f"{text}\n\nQuestion: {asked}\nAnswer: {told}\n\n\n" for text, asked, told in EXAMPLES)
    shown = [(f"{text}\n\n", True) for text in passages]
    return [(examples, False), *shown, ("Question:", False), (f" {as_question(question)}", False), ("\nAnswer:", False)]


def as_question(text: str) -> str:
    """`text` with a capital letter and a question mark, as models expect a question."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(("?", "？", ".", "!")) else "?")
