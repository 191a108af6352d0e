"""`kv_retrieval_75`: the published lists of 75 pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from longreach.evaluate.data import data_file, read_json
from longreach.evaluate.tasks import Example, tasks
from longreach.evaluate.tasks.generated import segments
from longreach.evaluate.tasks.kv_retrieval import KvRetrieval, asked, line


@tasks.register("kv_retrieval_75")
@dataclass(frozen=True)
class KvRetrieval75:
    """100 lists of 75 pairs of UUIDs, one asked for (Liu et al. 2023, arXiv 2307.03172), from the shared data."""

    @property
    def chance(self) -> float:
        return 0.0

    def __len__(self) -> int:
        return len(self._records)

    def examples(self) -> Iterator[Example]:
        for number, record in enumerate(self._records):
            pairs = record["ordered_kv_records"]
            context, where = segments([line(key, value) for key, value in pairs], "\n")
            at = next(index for index, (key, _) in enumerate(pairs) if key == record["key"])
            question = asked(record["key"], record["value"], where[at])
            yield Example(str(number), (question,), KvRetrieval.instructions, context)

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return list(read_json(data_file("kv_retrieval_75")))
