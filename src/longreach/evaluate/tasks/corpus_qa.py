"""`corpus_qa`: questions to a whole corpus, to be searched and then read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longreach.errors import InputError
from longreach.evaluate.metrics.answers import ANSWER_METRICS
from longreach.evaluate.pack import Pack, load_pack
from longreach.evaluate.tasks import Example, Question, tasks
from longreach.types import Document


@tasks.register("corpus_qa")
@dataclass(frozen=True)
class CorpusQa:
    """The questions of a pack that have answers, over its documents. `metric` scores what was said (where answers are
    whole sentences, "reference_recall"); what was found and cited is scored beside it."""

    pack: str = "nq_passages"
    metric: str = "any_answer"

    def __post_init__(self) -> None:
        if self.metric not in ANSWER_METRICS:
            raise ValueError(f"metric={self.metric!r} is none of {', '.join(ANSWER_METRICS)}")

    @property
    def chance(self) -> float:
        return 0.0

    @property
    def answered(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._opened.answers)

    def examples(self) -> Iterator[Example]:
        pack = self._opened
        for query, answers in pack.answers.items():
            asked = Question(pack.queries[query], answers, self.metric, relevant=pack.qrels.get(query, {}))
            yield Example(query, (asked,))

    def documents(self) -> Sequence[Document]:
        return [Document(id, text) for id, text in self._opened.docs.items()]

    @property
    def _opened(self) -> Pack:
        pack = load_pack(self.pack)
        if not pack.answers:
            raise InputError(f"the pack {self.pack!r} has no answers: search it with retrieval(pack={self.pack!r})")
        return pack
