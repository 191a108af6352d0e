"""Reading block by block, so that gradients pass: many prompts packed into one forward of the model.

Block-Attention, Ma et al. 2024, arXiv 2409.15355: a passage attends to itself and to what opens the prompt; question
and answer attend to everything. Each passage is read right behind the opening and its keys are turned to where it
stands, as stored passages are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.attention.rotation import Rotation
from longreach.errors import UnsupportedError
from longreach.model.bridge import Bridge
from longreach.train.material import Case, Ids

_ALIGNED = 16
"""Runs are laid out in multiples of this: fewer shapes, and masks that kernels like."""


@dataclass(frozen=True)
class Opening:
    """What opens a prompt, read by the original model: `keys`, `values [tokens, kv_heads, dim]` of each layer."""

    ids: Ids
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Rows:
    """Runs of packed tokens laid side by side: `index [runs * longest]` takes them out of the packing (padding repeats
    tokens, whichever), `back [tokens]` puts them in again."""

    runs: int
    longest: int
    index: torch.Tensor
    back: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device, first: int = 0) -> Rows:
        """Runs of `lengths` that follow each other from packed token `first` on."""
        longest, total = -(-max(lengths) // _ALIGNED) * _ALIGNED, sum(lengths)
        # Padding is spread over all tokens: gradients of many copies of one token would queue up.
        index = np.arange(len(lengths) * longest) % total + first
        at = _places(lengths, longest)
        index[at] = np.arange(total) + first
        return cls(len(lengths), longest, torch.from_numpy(index).to(device), torch.from_numpy(at).to(device))

    def lay(self, packed: torch.Tensor) -> torch.Tensor:
        """`[tokens, heads, dim]` as `[runs, longest, heads, dim]`."""
        return packed.index_select(0, self.index).view(self.runs, self.longest, *packed.shape[1:])

    def pack(self, laid: torch.Tensor) -> torch.Tensor:
        """The other way round, without the padding."""
        return laid.flatten(0, 1).index_select(0, self.back)


@dataclass(frozen=True)
class Packing:
    """Prompts in one row, passages of all prompts first, then what asks of all prompts.

    `tokens`, `positions [tokens]`: where each token is computed. The first `read` are passages; `shifts [read]` says
    how many places further on they stand. `blocks` are the passages; `asking` and `asked` what asks and the passages,
    `asked_lengths` tokens, that it sees, prompt by prompt (None: nothing asks apart, prompts are read whole).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    shifts: torch.Tensor
    read: int
    blocks: Rows
    asking: Rows | None
    asked: Rows | None
    asked_lengths: torch.Tensor

    @classmethod
    def whole(cls, cases: Sequence[Case], opening: int, device: torch.device) -> Packing:
        """Each prompt up to its answer, read in one go behind an opening of `opening` tokens."""
        texts = [np.concatenate([*case.passages, case.question]) for case in cases]
        return cls._pack(texts, [np.arange(len(text)) + opening for text in texts], device)

    @classmethod
    def whole_text(cls, ids: Ids, device: torch.device) -> Packing:
        """One text from position 0 on."""
        return cls._pack([ids], [np.arange(len(ids))], device)

    @classmethod
    def _pack(cls, texts: list[Ids], positions: list[NDArray[np.int64]], device: torch.device) -> Packing:
        blocks = Rows.of([len(text) for text in texts], device)
        tokens, at = _tensor(texts, device), _tensor(positions, device)
        return cls(tokens, at, torch.zeros_like(at), len(tokens), blocks, None, None, at[:0])

    @classmethod
    def by_blocks(cls, cases: Sequence[Case], answers: Sequence[Ids], opening: int, device: torch.device) -> Packing:
        """Each passage by itself behind the opening; then questions and answers, whose last token is not read."""
        passages = [passage for case in cases for passage in case.passages]
        asking = [np.concatenate([case.question, answer[:-1]]) for case, answer in zip(cases, answers, strict=True)]
        lengths = [sum(len(passage) for passage in case.passages) for case in cases]
        shifts = [
            np.full(len(passage), before)
            for case in cases
            for passage, before in zip(case.passages, _before(case.passages), strict=True)
        ]
        positions = [np.arange(len(passage)) + opening for passage in passages]
        positions += [np.arange(len(text)) + opening + length for text, length in zip(asking, lengths, strict=True)]
        read = sum(lengths)
        return cls(
            _tensor([*passages, *asking], device),
            _tensor(positions, device),
            _tensor(shifts, device),
            read,
            Rows.of([len(passage) for passage in passages], device),
            Rows.of([len(text) for text in asking], device, read),
            Rows.of(lengths, device),
            torch.tensor(lengths, device=device),
        )


@dataclass
class BlockStep:
    """Attention over a packing; travels through the layers (`longreach.model.bridge.Attends`).

    `kept` collects the keys and values of each layer, laid out by block, where `keep` is set; `watched` what each layer
    read for the packed tokens `watch`, `[tokens, heads, dim]`.
    """

    packing: Packing
    opening: Opening | None
    rotations: Sequence[Rotation]
    keep: bool = False
    watch: torch.Tensor | None = None
    kept: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    watched: list[torch.Tensor] = field(default_factory=list)
    _masks: dict[str, torch.Tensor] = field(default_factory=dict)
    _turns: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Attends.attend`; no log-sum-exp is computed."""
        if scores.window is not None or scores.softcap is not None:
            raise UnsupportedError("models with windows or capped scores cannot be taught to read block by block yet")
        pack = self.packing
        group = query.shape[1] // key.shape[1]
        keys, values = pack.blocks.lay(key), pack.blocks.lay(value)
        before = self._before(layer, key, value)
        if self.keep:
            self.kept.append((keys, values))
        mask = self._mask("blocks", query, group)
        blocks = pack.blocks.runs
        over = [_join(part, blocks, own) for part, own in zip(before, (keys, values), strict=True)]
        output = pack.blocks.pack(grouped(pack.blocks.lay(query), over[0], over[1], mask, scores.scale))
        if pack.asking is not None and pack.asked is not None:
            moved = self._moved(layer, key[: pack.read])
            parts = [(moved, key), (value[: pack.read], value)]
            over = [
                _join(opening, pack.asking.runs, pack.asked.lay(read), pack.asking.lay(own))
                for opening, (read, own) in zip(before, parts, strict=True)
            ]
            mask = self._mask("asking", query, group)
            asked = grouped(pack.asking.lay(query), over[0], over[1], mask, scores.scale)
            output = torch.cat([output, pack.asking.pack(asked)])
        if self.watch is not None:
            self.watched.append(output[self.watch])
        return output, output.new_empty(0)

    def _before(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.opening is None:
            return key[:0], value[:0]
        return self.opening.keys[layer], self.opening.values[layer]

    def _moved(self, layer: int, key: torch.Tensor) -> torch.Tensor:
        rotation = self.rotations[layer]
        name = rotation.frequencies.numpy().tobytes()
        if name not in self._turns:
            angle = self.packing.shifts[:, None, None].double() * rotation.frequencies.to(key.device)
            self._turns[name] = angle.cos().float(), angle.sin().float()
        return rotation.turn_by(key, *self._turns[name]) if len(rotation.frequencies) else key

    def _mask(self, which: str, query: torch.Tensor, group: int) -> torch.Tensor:
        """Additive, `[runs or 1, 1, group * queries, keys]`."""
        if which not in self._masks:
            pack, opening = self.packing, len(self.opening) if self.opening else 0
            rows = pack.blocks if which == "blocks" else pack.asking
            assert rows is not None
            at = torch.arange(rows.longest, device=query.device)
            parts = [at.new_ones(rows.longest, opening, dtype=torch.bool), at[None] <= at[:, None]]
            seen = torch.cat(parts, 1)[None]
            if which == "asking" and pack.asked is not None:
                there = torch.arange(pack.asked.longest, device=query.device) < pack.asked_lengths[:, None]
                there = there[:, None].expand(-1, rows.longest, -1)
                left, right = (part[None].expand(rows.runs, -1, -1) for part in parts)
                seen = torch.cat([left, there, right], 2)
            mask = query.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
            self._masks[which] = mask.repeat(1, group, 1)[:, None]
        return self._masks[which]


def grouped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of `query [runs, queries, heads, dim]` to `key`, `value [runs, keys, kv_heads, dim]`; query heads of
    one KV head are laid behind each other, so that keys need not be repeated."""
    runs, queries, heads, _ = query.shape
    kv_heads, group = key.shape[2], heads // key.shape[2]
    folded = query.view(runs, queries, kv_heads, group, -1).permute(0, 2, 3, 1, 4).flatten(2, 3)
    mask = mask.expand(runs, kv_heads, -1, -1)
    done = functional.scaled_dot_product_attention(
        folded, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask, scale=scale
    )
    return done.view(runs, kv_heads, group, queries, -1).permute(0, 3, 1, 2, 4).flatten(2, 3)


@torch.no_grad()
def read_opening(bridge: Bridge, ids: Ids) -> Opening:
    """What the model makes of the tokens that open a prompt."""
    packing = Packing.whole_text(ids, bridge.device)
    step = BlockStep(packing, None, bridge.rotations, keep=True)
    bridge.run(packing.tokens, packing.positions, step, torch.tensor([0], device=bridge.device))
    n = len(ids)  # what is laid out behind it is padding
    return Opening(ids, [keys[0, :n] for keys, _ in step.kept], [values[0, :n] for _, values in step.kept])


def _join(opening: torch.Tensor, runs: int, *parts: torch.Tensor) -> torch.Tensor:
    return torch.cat([opening[None].expand(runs, -1, -1, -1), *parts], 1)


def _before(passages: Sequence[Ids]) -> list[int]:
    """How many tokens stand before each passage."""
    return [0, *np.cumsum([len(passage) for passage in passages])[:-1].tolist()]


def _places(lengths: Sequence[int], longest: int) -> NDArray[np.int64]:
    return np.concatenate([run * longest + np.arange(length) for run, length in enumerate(lengths)])


def _tensor(parts: Sequence[NDArray[np.integer]], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)
