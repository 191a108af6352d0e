"""`order_recall`: which of two excerpts of a text stood there first?"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

from longreach.evaluate.tasks import Example, Question, tasks
from longreach.evaluate.tasks.generated import Generated, segments


@tasks.register("order_recall")
@dataclass(frozen=True)
class OrderRecall(Generated):
    """An excerpt of the haystack, then `excerpts` of it of about `words` words, mixed; wanted is the order in which
    they stood (Pink et al. 2024, SORT, arXiv 2410.08133, which shows two)."""

    excerpts: int = 2
    words: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.excerpts <= 8 or self.words < 4:
            raise ValueError("excerpts must be 2 to 8, words at least 4")

    @property
    def chance(self) -> float:
        return 1 / math.factorial(self.excerpts)

    def example(self, number: int) -> Example:
        start = self.random(number).randrange(len(self.hay.sentences))

        def build(words: int) -> Example:
            pieces = self.hay.stretch(start, words)
            context, where = segments(pieces)
            questions = tuple(self._asked(number, turn, pieces, where) for turn in range(self.questions))
            return Example(str(number), questions, _INSTRUCTIONS, context, self.mode)

        return self.fitted(build, self.length * 3 // 4)[0]

    def _asked(self, number: int, turn: int, pieces: list[str], where: list[int]) -> Question:
        """Takes one excerpt from each of as many parts of the text, so that they do not overlap."""
        random = self.random(number, f"question {turn}")
        letters = string.ascii_uppercase[: self.excerpts]
        part = len(pieces) / self.excerpts
        taken = [int((index + random.uniform(0.1, 0.6)) * part) for index in range(self.excerpts)] if pieces else []
        places = random.sample(range(self.excerpts), self.excerpts)  # which of them each letter shows
        shown = []
        for letter, at in zip(letters, (taken[place] for place in places if taken), strict=False):
            excerpt = " ".join(" ".join(pieces[at : at + self.words]).split()[: self.words])
            shown.append(f"{letter}: … {excerpt} …")
        answer = "".join(letters[places.index(index)] for index in range(self.excerpts))
        if self.excerpts == 2:
            text, answer = "Which of these excerpts stands first in the text, A or B?", answer[0]
        else:
            text = (
                "In which order do these excerpts stand in the text? Write their letters in that order, first to last."
            )
        gold = tuple(sorted({where[at] for at in taken}))
        return Question("\n".join([text, *shown]), (answer,), "choice", 8, "", gold)


_INSTRUCTIONS = "Read the text below. Afterwards you will be asked in which order things stand in it."
