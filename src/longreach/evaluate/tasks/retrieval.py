"""`retrieval`: what is relevant to each query of a pack?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longreach.evaluate.pack import load_pack
from longreach.evaluate.tasks import Example, Question, tasks
from longreach.types import Document


@tasks.register("retrieval")
@dataclass(frozen=True)
class Retrieval:
    """The queries of a pack over its documents: a shared pack's name, a folder in BEIR's layout, or one of TREC files.
    The score is nDCG@10."""

    pack: str = "scifact"

    @property
    def chance(self) -> float:
        return 0.0

    @property
    def answered(self) -> bool:
        return False

    def __len__(self) -> int:
        pack = load_pack(self.pack)
        return sum(query in pack.queries for query in pack.qrels)

    def examples(self) -> Iterator[Example]:
        pack = load_pack(self.pack)
        for query, grades in pack.qrels.items():
            if query in pack.queries:
                yield Example(query, (Question(pack.queries[query], (), "nDCG@10", relevant=grades),))

    def documents(self) -> Sequence[Document]:
        return [Document(id, text) for id, text in load_pack(self.pack).docs.items()]
