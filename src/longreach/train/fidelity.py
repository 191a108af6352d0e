"""How near reading block by block comes to reading whole, on questions that were held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch

from longreach.errors import InputError
from longreach.model.adapter import Adapter
from longreach.model.bridge import Bridge
from longreach.train.blocks import BlockStep, Opening, Packing, read_opening
from longreach.train.material import Case, Material
from longreach.train.teacher import Lesson, lessons

SURE = 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class Course:
    """Questions to measure on: `passages` passages of `pack` in each prompt, in a form."""

    pack: str
    form: str
    passages: int

    @classmethod
    def parse(cls, text: str) -> Course:
        """`pack:form:passages`. Raises InputError."""
        try:
            pack, form, passages = text.split(":")
            return cls(pack, form, int(passages))
        except ValueError:
            raise InputError(f"{text!r} names no course: write pack:form:passages, as in musique:examples:8") from None

    def __str__(self) -> str:
        return f"{self.pack}:{self.form}:{self.passages}"


COURSES = tuple(
    Course(pack, form, passages)
    for pack, form, passages in (
        ("musique", "examples", 8),
        ("musique", "examples", 16),
        ("musique", "chat", 8),
        ("nq_passages", "examples", 8),
        ("nq_passages", "examples", 16),
        ("nq_passages", "chat", 8),
        ("code_qa", "examples", 8),
        ("chunk_spans", "examples", 8),
    )
)


@dataclass(frozen=True)
class Fidelity:
    """Over the answers' tokens: mean `kl` in nats, `first_kl` that of each answer's first token, `worst_kl` what 95 of
    100 tokens do not exceed; `top1` the share of equal first choices among the `sure` tokens, to which the original
    model gives a probability of at least one half."""

    cases: int
    tokens: int
    kl: float
    first_kl: float
    worst_kl: float
    sure: int
    top1: float


def run_blocks(
    bridge: Bridge, opening: Opening, taught: Sequence[Lesson], adapter: Adapter | None, *, watch: bool = False
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Logits along each question and along each answer, as in `Lesson`, with passages read block by block; with
    `watch`, also what attention gave for all questions' tokens, `[layers, tokens, heads * dim]`."""
    packing = Packing.by_blocks(
        [one.case for one in taught], [one.answer for one in taught], len(opening), bridge.device
    )
    keep = torch.arange(packing.read, len(packing.tokens), device=bridge.device)
    lengths = [len(one.case.question) + len(one.answer) - 1 for one in taught]
    along = torch.cat(
        [torch.arange(len(one.case.question)) + at for one, at in zip(taught, _starts(lengths), strict=True)]
    )
    watched = along.to(bridge.device) + packing.read if watch else None
    step = BlockStep(packing, opening, bridge.rotations, watch=watched)
    if adapter is None:
        logits = bridge.run(packing.tokens, packing.positions, step, keep)
    else:
        with adapter.applied(bridge.model, packing.read if adapter.scope == "passages" else None):
            logits = bridge.run(packing.tokens, packing.positions, step, keep)
    rows = torch.split(logits, lengths)
    firsts = [len(one.case.question) - 1 for one in taught]
    read = torch.stack([layer.flatten(1) for layer in step.watched]) if watch else logits.new_empty(0)
    asked = [row[:first] for row, first in zip(rows, firsts, strict=True)]
    return asked, [row[first:] for row, first in zip(rows, firsts, strict=True)], read


def divergence(exact: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """KL in nats of each row of logits `[rows, vocab]`, from the exact distribution."""
    log_p, log_q = exact.float().log_softmax(-1), near.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@torch.no_grad()
def measure(
    bridge: Bridge, opening: Opening, taught: Sequence[Lesson], adapter: Adapter | None, tokens: int
) -> Fidelity:
    """Compare, at most about `tokens` tokens of prompts at a time."""
    kls, firsts, sure, same = [], [], 0, 0
    for some in batches(taught, tokens, lambda one: one.case.tokens):
        _, said, _ = run_blocks(bridge, opening, some, adapter)
        for one, near in zip(some, said, strict=True):
            kl = divergence(one.said, near)
            kls.append(kl.cpu())
            firsts.append(float(kl[0]))
            best, choice = one.said.float().softmax(-1).max(-1)
            certain = best >= SURE
            sure += int(certain.sum())
            same += int((near.argmax(-1) == choice)[certain].sum())
    every = torch.cat(kls)
    worst = float(every.quantile(0.95))
    mean_first = sum(firsts) / len(firsts)
    return Fidelity(len(taught), len(every), float(every.mean()), mean_first, worst, sure, same / max(1, sure))


@torch.no_grad()
def evaluate(
    bridge: Bridge,
    material: Material,
    adapters: dict[str, Adapter | None],
    courses: Sequence[Course] = COURSES,
    *,
    count: int = 48,
    answer_tokens: int = 24,
    tokens: int = 24_000,
    seed: int = 0,
    report: Callable[[dict[str, object]], None] = lambda _: None,
) -> list[dict[str, object]]:
    """A row for each course and adapter: the reference is the original model's greedy answer to the whole prompt."""
    rows = []
    for course in courses:
        form = material.form(course.form)
        opening = read_opening(bridge, form.opening)
        cases = [
            Case(case.passages, case.question, None, case.pack)
            for case in material.held_cases(course.pack, form, course.passages, count, seed)
        ]
        taught = [
            lesson
            for some in batches(cases, tokens, lambda case: case.tokens)
            for lesson in lessons(bridge, opening, form, some, answer_tokens)
        ]
        for name, adapter in adapters.items():
            found = measure(bridge, opening, taught, adapter, tokens)
            rows.append({"course": str(course), "adapter": name, **asdict(found)})
            report(rows[-1])
    return rows


def batches(items: Sequence[T], most: int, size: Callable[[T], int]) -> list[list[T]]:
    """`items` in order, in groups of at most `most` by `size`, at least one in each."""
    groups: list[list[T]] = []
    room = -1
    for item in items:
        room -= size(item)
        if room < 0:
            groups.append([])
            room = most - size(item)
        groups[-1].append(item)
    return groups


def _starts(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:at]) for at in range(len(lengths))]
