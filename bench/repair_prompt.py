"""A case laid out in slots: what the full prefill keeps, what a store keeps, and how far an answer is from exact."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import torch

from blockwise import Memory, Narrow, Net, Tempered
from longreach.kv.reuse.reuse import Lead
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
    readings: dict[Lead, Stored] = field(default_factory=dict)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of the chunks among the slots of chunks."""
        sizes = torch.tensor([0, *(len(text) for text in self.case.chunks)]).cumsum(0).tolist()
        return list(itertools.pairwise(sizes))

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
    net: Net, memory: Memory, hidden: torch.Tensor, at: int, end: frozenset[int], limit: int = ANSWER
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode greedily from `hidden` of the last token, into the slots from `at`: at most `limit` tokens, and the
    log-probabilities before each. An end token is among them."""
    tokens, told = [], []
    for step in range(limit):
        log_probs = net.log_probs(hidden)
        told.append(log_probs)
        tokens.append(int(log_probs.argmax()))
        if tokens[-1] in end or step == limit - 1:
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
    """`kl [answer tokens]` to the full prefill; `agree` where the top token is the same; `sure` where the full prefill
    gives it at least a half; what share of the chunks' token-layers was computed again, and the cost of all as a share
    of the full prefill's. `told [answer tokens]`: the top tokens. `memory` is what the answer can go on from."""

    kl: torch.Tensor
    agree: torch.Tensor
    sure: torch.Tensor
    recomputed: float
    cost: float
    told: torch.Tensor
    memory: Memory | None

    def light(self) -> Outcome:
        """Without the memory, and on the CPU."""
        kl, agree, sure, told = (each.cpu() for each in (self.kl, self.agree, self.sure, self.told))
        return replace(self, kl=kl, agree=agree, sure=sure, told=told, memory=None)


def repair(
    net: Net,
    prompt: Prompt,
    held: Memory,
    depths: torch.Tensor,
    *,
    narrow: Narrow | None = None,
    tempered: Tempered | None = None,
    joints: bool = True,
) -> Outcome:
    """Compute the joints, the tokens with `depths [tokens of chunks]` above 0 through as many layers, the tail and the
    exact answer, over `held`; compare the answer's distributions. The answer's own tokens cost nothing."""
    memory = held.copy()
    chosen = prompt.passages[depths > 0]
    between = prompt.joints if joints else prompt.joints[:0]
    body, order = torch.cat([between, chosen]).sort()
    tail_ids = torch.cat([prompt.ids[prompt.tail], prompt.answer[:-1]])
    tail = int(prompt.tail[0]) + torch.arange(len(tail_ids))
    deep = torch.cat([torch.full_like(between, net.layers), depths[depths > 0]])[order]
    done = net.compute(
        memory,
        torch.cat([prompt.ids[body], tail_ids]),
        torch.cat([body, tail]),
        depths=torch.cat([deep, torch.full_like(tail, net.layers)]),
        narrow=narrow,
        tempered=tempered,
    )
    log_probs = net.log_probs(done.hidden[-len(prompt.answer) :])
    exact = prompt.exact.max(-1)
    told = log_probs.argmax(-1)
    cost = done.cost - (len(prompt.answer) - 1) * net.layers
    return Outcome(
        kl=(prompt.exact.exp() * (prompt.exact - log_probs)).sum(-1),
        agree=told == exact.indices,
        sure=exact.values.exp() >= 0.5,
        recomputed=int(done.layers[prompt.passages].sum()) / net.layers / len(prompt.passages),
        cost=cost / net.layers / len(prompt.ids),
        told=told,
        memory=memory,
    )


def look(net: Net, prompt: Prompt, held: Memory) -> tuple[torch.Tensor, float]:
    """One pass of the tail over `held`, the joints unseen: its attention `[layers, heads, tail, tokens of chunks]`, and
    what it cost, as a share of a full prefill's token-layers."""
    memory = held.copy()
    watch = torch.ones(len(prompt.tail), dtype=torch.bool)
    done = net.compute(memory, prompt.ids[prompt.tail], prompt.tail, watch=watch)
    return torch.stack(done.weights)[..., prompt.passages], done.cost / net.layers / len(prompt.ids)
