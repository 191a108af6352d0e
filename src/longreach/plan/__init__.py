"""How much to search and read for a question, and how to answer it. So far: defaults that suit the model."""

from __future__ import annotations

from dataclasses import dataclass

from longreach.engine import Engine

SMALL = 1_000_000_000
"""Parameters below which a model is trusted to find an answer in the text, not to phrase one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Specs of the chooser and the answerer."""

    chooser: str
    answer: str


def suited(engine: Engine) -> Plan:
    """What suits the model: a small one gets few passages and answers with a span of them; others read more and
    write."""
    if 0 < engine.parameters < SMALL:
        return Plan(chooser="top_k(k=3)", answer="rank_spans")
    return Plan(chooser="top_k(k=8)", answer="generate")
