"""A question set as JSONL: to be read, mended and thinned out by people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longreach.errors import InputError
from longreach.evaluate.data import read_jsonl
from longreach.evaluate.questions import Made

LONG = 8
"""Answers of more words are scored by the share of them that is told; shorter ones must stand in the answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A line of the file: a question, the answers any of which is right, and the span that tells them, whose text is
    `quote`."""

    id: str
    question: str
    answers: tuple[str, ...]
    document: str
    start: int
    end: int
    quote: str
    kind: str

    @property
    def metric(self) -> str:
        """How an answer is scored."""
        return "reference_recall" if min(len(answer.split()) for answer in self.answers) > LONG else "any_answer"


def write_questions(file: Path, made: Sequence[Made], quotes: Sequence[str]) -> None:
    """Write questions with the texts of their spans. Raises InputError where the file is there: it may hold a person's
    work."""
    if file.exists():
        raise InputError(f"{file} is there already: name another file, or remove it")
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {
                "id": str(number),
                "keep": True,
                "question": each.question,
                "answers": [each.answer],
                "document": each.document,
                "start": each.start,
                "end": each.end,
                "quote": quote,
                "kind": each.kind,
            },
            ensure_ascii=False,
        )
        for number, (each, quote) in enumerate(zip(made, quotes, strict=True), start=1)
    ]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_questions(file: Path) -> list[Asked]:
    """The questions of a file, but for lines that say `"keep": false`. Raises InputError naming the question at
    fault."""
    asked: list[Asked] = []
    seen: set[str] = set()
    for number, row in enumerate(read_jsonl(file), start=1):
        if row.get("keep", True) is False:
            continue
        try:
            one = Asked(
                str(row.get("id", number)),
                str(row["question"]),
                tuple(str(answer) for answer in row["answers"]),
                str(row["document"]),
                int(row["start"]),
                int(row["end"]),
                str(row["quote"]),
                str(row.get("kind", "")),
            )
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{file}, question {number}: it needs question, answers, document, start, end and quote"
            ) from None
        if not one.question.strip() or not one.answers or one.id in seen:
            raise InputError(f"{file}, question {number}: its text, its answers or an id of its own is missing")
        seen.add(one.id)
        asked.append(one)
    if not asked:
        raise InputError(f"{file} holds no question to ask")
    return asked
