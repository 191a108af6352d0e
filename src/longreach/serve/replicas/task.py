"""What the front has a replica do, and what it is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from longreach.answer import Answerer, Draft
from longreach.engine import Completion, Part, Piece, Sampling
from longreach.engine.texts import Texts
from longreach.serve.replicas.wanted import Wanted
from longreach.types import Passage


@dataclass(frozen=True, slots=True)
class Write:
    """Write on after a prompt."""

    prompt: Sequence[Part]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a question from passages that were found for it."""

    answerer: Answerer
    question: str
    passages: Sequence[Passage]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do for `tenant` in `seconds` at most."""

    work: Write | Answer
    wanted: Wanted
    tenant: str
    seconds: float


Told: TypeAlias = Piece | str | Completion | Draft | Exception
"""Pieces of an answer as they come: of `Write` ends a `Completion`, of `Answer` a `Draft`, of either an error."""
Gauges: TypeAlias = list[tuple[str, str, str, dict[str, float]]]
"""Name, what it says, its label, and the value for each of the label's ("" where it has none)."""


@dataclass(frozen=True, slots=True)
class Pages:
    """`page_size` entries take `page_bytes`."""

    page_size: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What all replicas have in common. `apart`: passages are read by themselves; `least_bytes` is what one token
    takes."""

    model: str
    context_length: int
    parameters: int
    end_tokens: frozenset[int]
    texts: Texts
    apart: bool
    pages: Pages
    least_bytes: int
