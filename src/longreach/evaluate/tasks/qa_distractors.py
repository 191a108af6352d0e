"""`qa_distractors`: a question, the passages that tell the answer, and many that do not."""

from __future__ import annotations

from dataclasses import dataclass

from longreach.evaluate.tasks import Example, Question, tasks
from longreach.evaluate.tasks.passages import Passages


@tasks.register("qa_distractors")
@dataclass(frozen=True)
class QaDistractors(Passages):
    """Questions of a pack over its own passages (Hsieh et al. 2024, RULER, arXiv 2404.06654). Each of several
    `questions` brings the passages that tell its answer."""

    def example(self, number: int) -> Example:
        queries = self.chosen(number, self.questions)
        planted: list[str] = []
        asked = []
        for query in queries:
            texts = [self.opened.docs[doc] for doc in self.gold(query)]
            gold = tuple(range(len(planted), len(planted) + len(texts)))
            planted += texts
            asked.append(Question(self.opened.queries[query], self.opened.answers[query], "any_answer", 32, "", gold))
        return self.mixed(number, queries, planted, asked)
