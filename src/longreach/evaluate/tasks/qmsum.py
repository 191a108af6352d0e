"""`qmsum`: questions about meetings, with the turns that tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from longreach.evaluate.data import data_file, read_json
from longreach.evaluate.tasks import Example, Mode, Question, tasks


@tasks.register("qmsum")
@dataclass(frozen=True)
class QmSum:
    """35 meetings, each with its questions (Zhong et al. 2021, QMSum, arXiv 2104.05938), from the shared data. An
    answer is a summary, scored by how much of the reference's words it holds; `gold` are the turns that tell."""

    mode: Mode = "multi_request"

    @property
    def chance(self) -> float:
        return 0.0

    def __len__(self) -> int:
        return len(self._meetings)

    def examples(self) -> Iterator[Example]:
        for number, meeting in enumerate(self._meetings):
            questions = tuple(
                Question(query, (answer,), "reference_recall", 160, "", _turns(spans, len(meeting["turns"])))
                for query, answer, spans in meeting["queries"]
            )
            yield Example(
                str(number), questions, "Below is what was said in a meeting.", tuple(meeting["turns"]), self.mode
            )

    @cached_property
    def _meetings(self) -> list[dict[str, Any]]:
        return [meeting for meeting in read_json(data_file("qmsum")) if meeting["queries"]]


def _turns(spans: list[list[int]], count: int) -> tuple[int, ...]:
    """The numbers of the turns from the first to the last of each span."""
    return tuple(sorted({at for first, last in spans for at in range(first, last + 1) if at < count}))
