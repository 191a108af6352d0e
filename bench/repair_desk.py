"""A method of `longreach.kv.reuse` at work on a prompt: chunks read as it wants them, a look, a choice, a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from blockwise import Memory, Net, Tempered
from longreach.kv.reuse import Question, Reuse, StoredTokens
from longreach.kv.reuse.filler import FILLER
from longreach.kv.reuse.gaze import unsteadiness
from longreach.kv.reuse.reuse import Lead
from repair_cases import Case
from repair_prompt import ANSWER, Outcome, Prompt, Stored, follow, lay, look, repair, stored


@dataclass
class Desk:
    """A model, its tokenizer, and what they do with a case."""

    net: Net
    tokenizer: Any
    end: frozenset[int]

    def lay(self, case: Case) -> Prompt:
        """Read `case` in full and answer it."""
        return lay(self.net, case, self.end)

    def reading(self, prompt: Prompt, lead: Lead) -> Stored:
        """What a store holds for the prompt's chunks, read behind `lead`."""
        if lead not in prompt.readings:
            behind = self.filler() if lead == "filler" else []
            prompt.readings[lead] = stored(
                self.net, prompt, behind=behind, prefixed=lead != "nothing", traced=lead == "filler"
            )
        return prompt.readings[lead]

    def follow(self, prompt: Prompt, method: Reuse) -> Outcome:
        """The outcome of `method`, its look at the question paid for."""
        held = self.reading(prompt, method.lead)
        slots, layers = prompt.passages, self.net.layers
        weights, looked = look(self.net, prompt, held.memory) if method.looks else (None, 0.0)
        known = StoredTokens(
            prompt.chunks,
            layers,
            question=None if weights is None else Question(weights),
            unsteady=self._unsteady(prompt) if method.looks else None,
            outward=held.outward[slots],
        )
        if method.parallel:
            return self._side_by_side(prompt, held.memory, method)

        def narrow(layer: int, computed: torch.Tensor, fresh: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
            mine = prompt.chunk[computed] > 0
            go = torch.ones(len(computed), dtype=torch.bool)
            chosen = method.narrow(layer, len(slots), fresh[:, :, mine], kept[:, :, mine])
            if chosen is not None:
                go[mine] = chosen
            return go

        outcome = repair(self.net, prompt, held.memory, method.depths(known), narrow=narrow)
        outcome.cost += looked
        return outcome

    def own_answer(self, prompt: Prompt, outcome: Outcome) -> torch.Tensor:
        """What the model writes greedily over `outcome.memory`: the exact answer as far as both agree, then its own."""
        same = len(prompt.answer) if bool(outcome.agree.all()) else int((~outcome.agree).nonzero()[0])
        if same == len(prompt.answer):
            return prompt.answer
        taken, first = prompt.answer[:same], outcome.told[same : same + 1]
        if int(first) in self.end or same + 1 >= ANSWER or outcome.memory is None:
            return torch.cat([taken, first])
        at = int(prompt.tail[-1]) + 1 + same
        hidden = self.net.compute(outcome.memory, first, torch.tensor([at])).hidden
        rest, _ = follow(self.net, outcome.memory, hidden, at + 1, self.end, ANSWER - same - 1)
        return torch.cat([taken, first, rest])

    def _side_by_side(self, prompt: Prompt, held: Memory, method: Reuse) -> Outcome:
        """Every chunk right behind the prefix, without joints; the tail behind the longest."""
        start, longest = len(prompt.case.prefix), max(len(text) for text in prompt.case.chunks)
        memory = held.copy()
        memory.positions = held.positions.clone()
        slots = prompt.passages
        places = start + torch.cat([torch.arange(len(text)) for text in prompt.case.chunks])
        memory.keys[:, :, slots] = self.net.turn_keys(memory.keys[:, :, slots], places - slots)
        memory.positions[slots] = places
        tail = int(prompt.tail[0])
        memory.positions[tail:] = start + longest + torch.arange(len(memory.positions) - tail)
        tempered = Tempered(prompt.chunk > 0, getattr(method, "temperature", 1.0), getattr(method, "scale", 1.0))
        none = torch.zeros(len(slots), dtype=torch.long)
        return repair(self.net, prompt, memory, none, tempered=tempered, joints=False)

    def _unsteady(self, prompt: Prompt) -> torch.Tensor:
        slots = prompt.passages
        near, far = self.reading(prompt, "prefix").memory, self.reading(prompt, "filler").memory
        return unsteadiness(near.keys[:, :, slots], far.keys[:, :, slots]) + unsteadiness(
            near.values[:, :, slots], far.values[:, :, slots]
        )

    def filler(self) -> list[int]:
        """Passages of filler as the prompt would show them, and the joint behind them."""
        joints = ["[1] ", *(f"\n\n[{number}] " for number in range(2, len(FILLER) + 2))]
        pieces = [piece for joint, text in zip(joints, FILLER, strict=False) for piece in (joint, text)]
        return [token for piece in (*pieces, joints[-1]) for token in self._encode(piece)]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
