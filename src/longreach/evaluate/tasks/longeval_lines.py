"""`longeval_lines`: the published registers of 200 and 400 lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from longreach.evaluate.data import data_file, read_json
from longreach.evaluate.tasks import Example, Question, tasks
from longreach.evaluate.tasks.generated import segments


@tasks.register("longeval_lines")
@dataclass(frozen=True)
class LongevalLines:
    """100 registers, one line asked for (Li et al. 2023, LongEval), from the shared data; `lines` takes those of 200 or
    400 lines alone, 0 all of them."""

    lines: int = 0

    @property
    def chance(self) -> float:
        return 0.0

    def __len__(self) -> int:
        return len(self._records)

    def examples(self) -> Iterator[Example]:
        for number, record in self._records:
            lines = [text for text in record["prompt"].splitlines() if text.startswith("line ")]
            context, where = segments(lines, "\n")
            name = record["random_idx"][0]
            at = next(index for index, text in enumerate(lines) if text.startswith(f"line {name}:"))
            question = Question(
                f"What is the <REGISTER_CONTENT> in line {name}?",
                (str(record["expected_number"]),),
                "any_answer",
                16,
                f"The <REGISTER_CONTENT> in line {name} is",
                (where[at],),
            )
            yield Example(
                str(number), (question,), "Below is a record of lines. Remember what each one holds.", context
            )

    @cached_property
    def _records(self) -> list[tuple[int, dict[str, Any]]]:
        records = enumerate(read_json(data_file("longeval_lines")))
        return [(number, record) for number, record in records if self.lines in (0, record["num_lines"])]
