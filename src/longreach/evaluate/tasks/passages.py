"""What tasks share that mix the passages of a pack which tell an answer with others that do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from longreach.errors import InputError
from longreach.evaluate.metrics.answers import contained
from longreach.evaluate.pack import Pack, load_pack
from longreach.evaluate.tasks import Example, Question
from longreach.evaluate.tasks.generated import Generated
from longreach.evaluate.tasks.planted import bury

INSTRUCTIONS = "Answer the question from the passages below. Answer with a name, a number or a few words."


@dataclass(frozen=True)
class Passages(Generated):
    """Examples over the retrieval pack `pack`, which must have answers. No distractor holds an answer."""

    pack: str = "nq_passages"

    def chosen(self, number: int, count: int) -> list[str]:
        """The queries of example `number`, `count` of them; none comes twice before all came. Raises InputError where
        the pack has too few."""
        if len(self._usable) < count:
            raise InputError(f"the pack {self.pack!r} has {len(self._usable)} usable questions, {count} are needed")
        return [self._usable[(number * count + at) % len(self._usable)] for at in range(count)]

    def suits(self, query: str) -> bool:
        """Whether the task can ask this query; one of its passages tells an answer."""
        return True

    @cached_property
    def _usable(self) -> list[str]:
        """In random order."""
        usable = [query for query in self.opened.queries if self.told(query) and self.suits(query)]
        self.random(-1).shuffle(usable)
        return usable

    @property
    def opened(self) -> Pack:
        return load_pack(self.pack)

    def gold(self, query: str) -> list[str]:
        """The documents that tell the answer to a query, by their ids."""
        pack = self.opened
        return [doc for doc, grade in pack.qrels.get(query, {}).items() if grade > 0 and doc in pack.docs]

    def told(self, query: str) -> tuple[str, ...]:
        """The answers to a query that stand in its gold documents."""
        texts = [self.opened.docs[doc] for doc in self.gold(query)]
        return tuple(
            answer for answer in self.opened.answers.get(query, ()) if any(contained(text, answer) for text in texts)
        )

    def mixed(
        self,
        number: int,
        queries: Sequence[str],
        planted: Sequence[str],
        questions: Sequence[Question],
        instructions: str = INSTRUCTIONS,
    ) -> Example:
        """An example with the passages `planted`, to whose numbers the `gold` of the questions refers, among others
        that hold no answer to `queries`. What no further passage fits into is filled with a piece of one."""
        random = self.random(number, "mix")
        depths = [random.random() for _ in planted]
        distractors = list(self._distractors(number, queries))

        def build(count: int, words: int = 0) -> Example:
            pieces, places = bury(planted, depths, distractors[:count])
            scrap = [" ".join(distractors[count].split()[:words])] if words else []
            told = tuple(
                replace(question, gold=tuple(sorted(places[at] + len(scrap) for at in question.gold)))
                for question in questions
            )
            return Example(str(number), told, instructions, (*scrap, *pieces), self.mode)

        most = len(distractors) - 1
        _, count = self.fitted(build, self.length // 150, most)
        if count >= most:
            raise InputError(f"the pack {self.pack!r} has too little text for length={self.length}")
        return self.fitted(lambda words: build(count, words), 50, len(distractors[count].split()))[0]

    def _distractors(self, number: int, queries: Sequence[str]) -> Iterator[str]:
        """Enough of them, in random order."""
        pack = self.opened
        random = self.random(number, "distractors")
        gold = {doc for query in queries for doc in self.gold(query)}
        answers = [answer for query in queries for answer in pack.answers[query]]
        others = [doc for doc in pack.docs if doc not in gold]
        random.shuffle(others)
        characters = 0
        for doc in others:
            text = pack.docs[doc]
            if any(contained(text, answer) for answer in answers):
                continue
            yield text
            characters += len(text)
            if characters > 8 * self.length:  # no tokenizer makes fewer tokens of a text
                return
