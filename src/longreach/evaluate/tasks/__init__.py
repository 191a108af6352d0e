"""Tasks: examples to read and questions about them. One task a file, named as its spec names it.

A task gives examples; an example has a context, in segments, and questions about it. A question says what is wanted and
by which metric an answer is scored (`longreach.evaluate.metrics.answers`). Two kinds differ in where the text is:

- in the example: a model reads `context`;
- in a corpus that all examples share, `documents()`: a library is searched, and a reader may answer (`CorpusTask`).

Tasks that are generated are the same to the byte for the same seed, tokenizer and haystack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from longreach.registry import Family
from longreach.types import Document

Mode: TypeAlias = Literal["multi_request", "multi_turn"]
"""How several questions share a context (Li et al. 2024, SCBench, arXiv 2412.10319): each in a request of its own, or
one after the other in a conversation, with the right answers between them."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its text, the `answers` wanted, and the metric that says whether one of them or all are.

    `lead` is how the answer begins: a model that goes on with a text is given it. `gold` are the segments of the
    context that tell the answer; `relevant` are the documents of a corpus that do, with their grades.
    """

    text: str
    answers: tuple[str, ...]
    metric: str
    max_tokens: int = 64
    lead: str = ""
    gold: tuple[int, ...] = ()
    relevant: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """`instructions`, then the segments of `context`, then a question. `id` is the task's own for it."""

    id: str
    questions: tuple[Question, ...]
    instructions: str = ""
    context: tuple[str, ...] = ()
    mode: Mode = "multi_request"


class Task(Protocol):
    """A registered dataclass whose fields are the task's options."""

    @property
    def chance(self) -> float:
        """What guessing scores."""
        ...

    def __len__(self) -> int: ...

    def examples(self) -> Iterator[Example]:
        """All examples, always the same and in the same order; made as they are taken."""
        ...


@runtime_checkable
class CorpusTask(Task, Protocol):
    """A task whose text is a corpus. `answered` tells whether its questions have answers, or only relevant
    documents."""

    @property
    def answered(self) -> bool: ...

    def documents(self) -> Sequence[Document]:
        """The corpus; the ids are those that `Question.relevant` names."""
        ...


tasks: Family[Task] = Family("tasks", __name__)
