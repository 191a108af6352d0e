"""A judge says yes or no, or nothing that counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from longreach.evaluate.metrics.judge import Judge


class Fake:
    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.asked: list[Any] = []

    def generate(self, prompts: Any, max_tokens: int) -> list[SimpleNamespace]:
        self.asked += prompts
        return [SimpleNamespace(text=self.reply)]


@pytest.mark.parametrize(
    ("reply", "score"), [(" Yes.", 1.0), ("no, it is not", 0.0), ("Perhaps.", None), ("Nothing", None)]
)
def test_the_first_verdict_counts(reply: str, score: float | None) -> None:
    engine: Any = Fake(reply)
    assert Judge(engine).score("Where?", "In Rome", ["Rome", "the city of Rome"]) == score
    (conversation,) = engine.asked
    assert all(part in conversation[-1].content for part in ("Where?", "In Rome", "- Rome", "- the city of Rome"))


def test_an_empty_answer_is_wrong_without_asking() -> None:
    engine: Any = Fake("yes")
    assert Judge(engine).score("Where?", " \n", ["Rome"]) == 0.0
    assert not engine.asked
