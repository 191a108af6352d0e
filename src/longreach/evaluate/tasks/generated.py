"""What generated tasks share: their options, their randomness, and how a context comes to its length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from longreach.evaluate.fit import largest
from longreach.evaluate.haystack import Haystack, load_haystack
from longreach.evaluate.prompt import parts
from longreach.evaluate.tasks import Example, Mode
from longreach.registry import resource
from longreach.types import TokenCounter

SEGMENT = 600
"""Characters after which a segment of the context is full."""


@dataclass(frozen=True)
class Generated(ABC):
    """`n` examples of `length` tokens each, from the instructions to the end of the first question; `haystack` is what
    they are filled with (see `longreach.evaluate.haystack`). Each asks `questions` about its context, in `mode`.

    The same options and tokenizer make the same examples; example i is the same however many there are.
    """

    length: int = 4096
    n: int = 100
    seed: int = 0
    haystack: str = "books"
    questions: int = 1
    mode: Mode = "multi_request"
    count: TokenCounter = resource()

    def __post_init__(self) -> None:
        if min(self.length, self.n, self.questions) < 1:
            raise ValueError("length, n and questions must be at least 1")

    @property
    def chance(self) -> float:
        return 0.0

    def __len__(self) -> int:
        return self.n

    def examples(self) -> Iterator[Example]:
        for number in range(self.n):
            yield self.example(number)

    @abstractmethod
    def example(self, number: int) -> Example:
        """Example `number`."""

    def random(self, number: int, part: str = "") -> Random:
        """The randomness of one example, or of a part of it."""
        return Random(f"{type(self).__name__}/{self.seed}/{number}/{part}")

    @property
    def hay(self) -> Haystack:
        return load_haystack(self.haystack)

    def tokens(self, example: Example) -> int:
        """The length of an example, in tokens."""
        return self.count("".join(parts(example)))

    def fitted(self, build: Callable[[int], Example], guess: int, most: int | None = None) -> tuple[Example, int]:
        """The longest example that `build` makes of an amount and that is not longer than `length`, and the amount."""
        amount = largest(lambda size: self.tokens(build(size)), self.length, guess, most)
        return build(amount), amount


def segments(pieces: list[str], separator: str = " ") -> tuple[tuple[str, ...], list[int]]:
    """Pieces of text joined into segments of about `SEGMENT` characters; with each piece's segment."""
    made: list[list[str]] = []
    where: list[int] = []
    size = SEGMENT
    for piece in pieces:
        if size >= SEGMENT:
            made.append([])
            size = 0
        made[-1].append(piece)
        size += len(piece)
        where.append(len(made) - 1)
    return tuple(separator.join(segment) for segment in made), where
