"""`long_generation`: many questions at once, to be answered one after the other in one long answer."""

from __future__ import annotations

from dataclasses import dataclass

from longreach.evaluate.tasks import Example, Question, tasks
from longreach.evaluate.tasks.passages import Passages


@tasks.register("long_generation")
@dataclass(frozen=True)
class LongGeneration(Passages):
    """`answers` questions of a pack in one (Liu et al. 2024, LongGenBench, arXiv 2410.04199). The score is the share of
    numbered lines that hold their answer; of several answers, the first that the passage holds is wanted."""

    answers: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.questions != 1:
            raise ValueError("this task asks one question about a context, with many answers")
        if self.answers < 2:
            raise ValueError("answers must be at least 2")

    def example(self, number: int) -> Example:
        pack = self.opened
        queries = self.chosen(number, self.answers)
        planted = [pack.docs[self.gold(query)[0]] for query in queries]
        told = tuple(self.told(query)[0] for query in queries)
        listed = "\n".join(f"{at}. {pack.queries[query]}" for at, query in enumerate(queries, start=1))
        text = f"Answer each of these questions, a numbered line for each:\n{listed}"
        question = Question(text, told, "numbered", 24 * self.answers, "", tuple(range(len(planted))))
        return self.mixed(number, queries, planted, [question], _INSTRUCTIONS)

    def suits(self, query: str) -> bool:
        return len(self.gold(query)) == 1


_INSTRUCTIONS = "Answer the questions from the passages below, each with a name, a number or a few words."
