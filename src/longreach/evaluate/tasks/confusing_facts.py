"""`confusing_facts`: the answer is invented, so that it cannot be remembered, and others tell nearly the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from longreach.evaluate.metrics.answers import plain
from longreach.evaluate.tasks import Example, Question, tasks
from longreach.evaluate.tasks.passages import Passages
from longreach.evaluate.vocabulary import made_up

_WORD = re.compile(r"[^\W\d_]+|\d+")
_SUBJECT = re.compile(r"[^\W\d_]{4,}")


@tasks.register("confusing_facts")
@dataclass(frozen=True)
class ConfusingFacts(Passages):
    """Questions of a pack whose passages were changed as LV-Eval does (Yuan et al. 2024, arXiv 2402.05136): the answer
    is replaced by an invented one of the same shape wherever it stands (keyword replacement), and `facts` copies of the
    passage tell other invented answers about other, invented subjects (confusing facts)."""

    facts: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.facts < 0:
            raise ValueError("facts must be at least 0")

    def example(self, number: int) -> Example:
        random = self.random(number)
        queries = self.chosen(number, self.questions)
        planted: list[str] = []
        asked = []
        for query in queries:
            passage, answer = self._verbatim(query)
            wanted = disguised(random, answer)
            subject = subjects(self.opened.queries[query], passage)
            gold = (len(planted),)
            planted.append(passage.replace(answer, wanted))
            planted += [self._confusing(random, passage, answer, subject) for _ in range(self.facts)]
            asked.append(Question(self.opened.queries[query], (wanted,), "keyword_recall", 32, "", gold))
        return self.mixed(number, queries, planted, asked)

    def _confusing(self, random: Random, passage: str, answer: str, subject: set[str]) -> str:
        others = {word: made_up(random) for word in sorted(subject)}
        kept = passage.replace(answer, disguised(random, answer))
        return _SUBJECT.sub(lambda match: _cased(match[0], others.get(match[0].lower(), match[0])), kept)

    def suits(self, query: str) -> bool:
        if len(self.gold(query)) != 1:
            return False
        passage, answer = self._verbatim(query)
        question = self.opened.queries[query]
        return len(answer) > 2 and plain(answer) not in plain(question) and len(subjects(question, passage)) > 1

    def _verbatim(self, query: str) -> tuple[str, str]:
        """The passage, and the first answer that stands in it to the letter, or nothing."""
        passage = self.opened.docs[self.gold(query)[0]]
        return passage, next((answer for answer in self.opened.answers[query] if answer in passage), "")


def disguised(random: Random, answer: str) -> str:
    """Another answer of the same shape: numbers for numbers, made-up words for words."""
    return _WORD.sub(lambda match: _other(random, match[0]), answer)


def subjects(question: str, passage: str) -> set[str]:
    """The words of four letters and more that question and passage share: what the question is about."""
    asked, told = ({word.lower() for word in _SUBJECT.findall(text)} for text in (question, passage))
    return asked & told


def _other(random: Random, word: str) -> str:
    if word.isdigit():
        return str(random.randrange(10 ** (len(word) - 1), 10 ** len(word)))
    return _cased(word, made_up(random, 2)) if len(word) > 2 else word


def _cased(pattern: str, word: str) -> str:
    return word.capitalize() if pattern[0].isupper() else word
