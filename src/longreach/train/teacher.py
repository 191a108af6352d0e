"""What the original model says when it reads prompts whole: its answers, and its logits along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.model.bridge import Bridge
from longreach.train.blocks import BlockStep, Opening, Packing, grouped
from longreach.train.material import Case, Form, Ids


@dataclass(frozen=True)
class Lesson:
    """A prompt with its answer, as the original model sees them: `asked [question tokens - 1, vocab]` are its logits
    along the question, `said [answer tokens, vocab]` those from which each token of the answer would be drawn; `read
    [layers, question tokens, heads * dim]` is what its attention gave for the question's tokens."""

    case: Case
    answer: Ids
    asked: torch.Tensor
    said: torch.Tensor
    read: torch.Tensor


@torch.no_grad()
def lessons(
    bridge: Bridge,
    opening: Opening,
    form: Form,
    cases: Sequence[Case],
    most: int,
    generator: torch.Generator | None = None,
) -> list[Lesson]:
    """Read `cases` whole and answer them: as the case says, or, where it does not, with the model's own words, at most
    `most` tokens; greedily, or drawn by `generator` (of the model's device). Adapters must not be applied."""
    device = bridge.device
    packing = Packing.whole(cases, len(opening), device)
    lengths = [case.tokens for case in cases]
    ends = np.cumsum(lengths)
    asking = [np.arange(end - len(case.question), end) for case, end in zip(cases, ends.tolist(), strict=True)]
    keep = torch.from_numpy(np.concatenate(asking)).to(device)
    step = BlockStep(packing, opening, bridge.rotations, keep=True, watch=keep)
    logits = torch.split(bridge.run(packing.tokens, packing.positions, step, keep), [len(rows) for rows in asking])
    read = torch.split(torch.stack([layer.flatten(1) for layer in step.watched]), [len(rows) for rows in asking], 1)
    last = torch.stack([rows[-1] for rows in logits])
    said: list[list[torch.Tensor]] = [[] for _ in cases]
    answers: list[list[int]] = [[] for _ in cases]
    ended = [False] * len(cases)
    stops = set(form.stops.tolist())
    positions = torch.tensor(lengths, device=device) + len(opening)
    writing = WritingStep.after(step, opening, positions, most)
    for at in range(most):
        own = _draw(last, generator)
        for n, case in enumerate(cases):
            given = case.answer
            if not ended[n]:
                said[n].append(last[n])
                answers[n].append(int(own[n]) if given is None else int(given[at]))
                ended[n] = answers[n][-1] in stops if given is None else at + 1 == len(given)
        if all(ended) or at + 1 == most:
            break
        fed = torch.tensor([answer[-1] for answer in answers], device=device)
        last = bridge.run(fed, positions + at, writing, torch.arange(len(cases), device=device))
        writing.written += 1
    return [
        Lesson(case, np.array(answer, np.int64), rows[:-1], torch.stack(drawn), seen)
        for case, answer, rows, drawn, seen in zip(cases, answers, logits, said, read, strict=True)
    ]


def _draw(logits: torch.Tensor, generator: torch.Generator | None) -> list[int]:
    if generator is None:
        return logits.argmax(-1).tolist()
    return torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0].tolist()


@dataclass
class WritingStep:
    """A token more for each of several prompts: `keys`, `values [prompts, room, kv_heads, dim]` of each layer hold the
    opening, the prompt, padding, and what was `written` so far; `there [prompts, room]` says what is to be seen."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    there: torch.Tensor
    first: int
    written: int = 0

    @classmethod
    def after(cls, step: BlockStep, opening: Opening, lengths: torch.Tensor, most: int) -> WritingStep:
        """Go on after whole prompts that `step` has read and kept; `lengths` count the opening in."""
        runs, longest = step.packing.blocks.runs, step.packing.blocks.longest
        grown: list[list[torch.Tensor]] = [[], []]
        for layer, kept in enumerate(step.kept):
            for out, before, own in zip(grown, (opening.keys[layer], opening.values[layer]), kept, strict=True):
                room = own.new_zeros(runs, most, *own.shape[2:])
                out.append(torch.cat([before[None].expand(runs, -1, -1, -1), own, room], 1))
        step.kept.clear()
        first = len(opening) + longest
        there = torch.arange(first + most, device=lengths.device) < lengths[:, None]
        return cls(grown[0], grown[1], there, first)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Attends.attend`; no log-sum-exp is computed."""
        at = self.first + self.written
        self.keys[layer][:, at] = key
        self.values[layer][:, at] = value
        self.there[:, at] = True
        mask = query.new_zeros(self.there.shape).masked_fill_(~self.there, -torch.inf)[:, None, None]
        mask = mask.expand(-1, 1, query.shape[1] // key.shape[1], -1)
        output = grouped(query[:, None], self.keys[layer], self.values[layer], mask, scores.scale)[:, 0]
        return output, output.new_empty(0)
