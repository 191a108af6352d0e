"""`corpus_qa`: questions to a whole corpus, to be searched and then read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longreach.evaluate.pack import load_pack
from longreach.evaluate.tasks import Example, Question, tasks
from longreach.types import Document


@tasks.register("corpus_qa")
@dataclass(frozen=True)
class CorpusQa:
    """The questions of a pack that have answers, over its documents. The score is whether an answer stands in what was
    said; what was found and cited is scored beside it."""

    pack: str = "nq_passages"

    @property
    def chance(self) -> float:
        return 0.0

    @property
    def answered(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(load_pack(self.pack).answers)

    def examples(self) -> Iterator[Example]:
        pack = load_pack(self.pack)
        for query, answers in pack.answers.items():
            asked = Question(pack.queries[query], answers, "any_answer", relevant=pack.qrels.get(query, {}))
            yield Example(query, (asked,))

    def documents(self) -> Sequence[Document]:
        return [Document(id, text) for id, text in load_pack(self.pack).docs.items()]
