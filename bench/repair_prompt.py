"""A case laid out in slots: what the full prefill keeps, what stored chunks keep, and how far an answer is from exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from blockwise import Memory, Narrow, Net, Tempered
from repair_cases import Case

ANSWER = 24
"""Tokens of an answer, at most."""


@dataclass
class Prompt:
    """Slots of a case: `ids` of prefix, joints and chunks, then of the tail, then of the exact answer.

    `chunk [slots]`: the number of the chunk that a slot belongs to, from 1, 0 elsewhere. `exact`: log-probabilities
    `[answer tokens, vocab]` of the full prefill before each token of its `answer`.
    """

    case: Case
    ids: torch.Tensor
    chunk: torch.Tensor
    tail: torch.Tensor
    full: Memory
    answer: torch.Tensor
    exact: torch.Tensor

    @property
    def passages(self) -> torch.Tensor:
        """The slots of chunks."""
        return self.chunk.nonzero().flatten()

    @property
    def joints(self) -> torch.Tensor:
        """The slots between chunks, which no store has."""
        slots = torch.arange(len(self.case.prefix), int(self.tail[0]))
        return slots[self.chunk[slots] == 0]


@dataclass
class Stored:
    """Kept keys and values in their places; `outward [slots]`: what share of its attention a token gave to what stood
    between prefix and chunk when it was read, averaged over layers and heads."""

    memory: Memory
    outward: torch.Tensor


def lay(net: Net, case: Case, end: frozenset[int]) -> Prompt:
    """Read `case` in full and answer it greedily."""
    ids, chunk = list(case.prefix), [0] * len(case.prefix)
    for number, (joint, text) in enumerate(zip(case.joints, case.chunks, strict=True), 1):
        ids += joint + text
        chunk += [0] * len(joint) + [number] * len(text)
    body = len(ids)
    ids += case.tail
    tokens = torch.tensor(ids)
    numbers = torch.zeros(len(ids) + ANSWER, dtype=torch.long)
    numbers[:body] = torch.tensor(chunk)
    memory = net.memory(torch.arange(len(ids) + ANSWER))
    hidden = net.compute(memory, tokens, torch.arange(len(ids))).hidden[-1:]
    answer, exact = follow(net, memory, hidden, len(ids), end)
    return Prompt(case, tokens, numbers, torch.arange(body, len(ids)), memory, answer, exact)


def follow(
    net: Net, memory: Memory, hidden: torch.Tensor, at: int, end: frozenset[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode greedily from `hidden` of the last token, into the slots from `at`: the tokens, and the log-probabilities
    before each. An end token is among them."""
    tokens, told = [], []
    for step in range(ANSWER):
        log_probs = net.log_probs(hidden)
        told.append(log_probs)
        tokens.append(int(log_probs.argmax()))
        if tokens[-1] in end or step == ANSWER - 1:
            break
        hidden = net.compute(memory, torch.tensor(tokens[-1:]), torch.tensor([at + step])).hidden
    return torch.tensor(tokens), torch.cat(told)


def stored(net: Net, prompt: Prompt, *, behind: list[int], prefixed: bool = True, traced: bool = False) -> Stored:
    """What a store would hold for the prompt: every chunk read by itself right behind the prefix (unless not
    `prefixed`) and `behind`, its keys then moved to its place; the prefix as it is. Slots that no store has cannot be
    seen. `traced` asks for `outward` too.
    """
    case = prompt.case
    start = len(case.prefix) if prefixed else 0
    lead = torch.tensor([*case.prefix[:start], *behind], dtype=torch.long)
    base, longest = len(lead), max(len(text) for text in case.chunks)
    memory = net.memory(torch.arange(base + longest))
    if base:
        net.compute(memory, lead, torch.arange(base))
    result = prompt.full.copy()
    result.alive[:] = False
    result.alive[: len(case.prefix)] = True
    outward = torch.zeros(len(prompt.chunk))
    for number in range(1, len(case.chunks) + 1):
        slots = (prompt.chunk == number).nonzero().flatten()
        rows = base + torch.arange(len(slots))
        everything = torch.ones(len(slots), dtype=torch.bool) if traced else None
        done = net.compute(memory, prompt.ids[slots], rows, watch=everything)
        if traced:
            outward[slots] = torch.stack([w[:, :, start:base].sum(-1).mean(0) for w in done.weights]).mean(0)
        memory.alive[rows] = False
        result.alive[slots] = True
        result.keys[:, :, slots] = net.turn_keys(memory.keys[:, :, rows], slots - rows)
        result.values[:, :, slots] = memory.values[:, :, rows]
    return Stored(result, outward)


@dataclass
class Outcome:
    """`kl [answer tokens]` to the full prefill, `agree` where its top token is the same; cost in token-layers."""

    kl: torch.Tensor
    agree: torch.Tensor
    sure: torch.Tensor
    cost: int
    recomputed: int
    hidden: torch.Tensor
    memory: Memory


def repair(
    net: Net,
    prompt: Prompt,
    held: Memory,
    depths: torch.Tensor,
    *,
    narrow: Narrow | None = None,
    tempered: Tempered | None = None,
) -> Outcome:
    """Compute the joints, the slots with `depths [slots] > 0` through as many layers, the tail and the exact answer, over
    `held`; compare the answer's distributions."""
    memory = held.copy()
    chosen = prompt.passages[depths[prompt.passages] > 0]
    body = torch.cat([prompt.joints, chosen]).sort().values
    tail_ids = torch.cat([prompt.ids[prompt.tail], prompt.answer[:-1]])
    tail = int(prompt.tail[0]) + torch.arange(len(tail_ids))
    slots = torch.cat([body, tail])
    deep = torch.cat([depths[body], torch.full_like(tail, net.layers)])
    deep[: len(body)][prompt.chunk[body] == 0] = net.layers
    done = net.compute(
        memory, torch.cat([prompt.ids[body], tail_ids]), slots, depths=deep, narrow=narrow, tempered=tempered
    )
    hidden = done.hidden[-len(prompt.answer) :]
    told = net.log_probs(hidden)
    kl = (prompt.exact.exp() * (prompt.exact - told)).sum(-1)
    top = prompt.exact.max(-1)
    agree = told.argmax(-1) == top.indices
    cost = done.cost - (len(prompt.answer) - 1) * net.layers
    return Outcome(kl, agree, top.values.exp() >= 0.5, cost, len(chosen), hidden, memory)


def look(net: Net, prompt: Prompt, held: Memory, upto: int | None = None) -> tuple[torch.Tensor, int]:
    """One pass of joints and question over `held`: the question's attention `[layers, heads, question, slots]`, and what
    it cost in token-layers."""
    memory = held.copy()
    slots = torch.cat([prompt.joints, prompt.tail])
    watch = torch.zeros(len(slots), dtype=torch.bool)
    watch[len(prompt.joints) :] = True
    done = net.compute(memory, prompt.ids[slots], slots, watch=watch, upto=upto)
    return torch.stack(done.weights), done.cost
