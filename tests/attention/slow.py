"""Attention over pages, entry by entry as it is defined; and random pages to try it on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longreach.attention.tables import Pages, References, Turns
from longreach.kv.coding import numbers_of, parts_of
from longreach.kv.pool import EMPTY


@dataclass
class Case:
    """Random inputs of the kernels. A sequence has `lengths[s]` new tokens. `coded`: how pages keep numbers in few
    bits; `keys` and `values` are the numbers they have."""

    lengths: list[int]
    heads: int = 2
    group: int = 2
    dim: int = 16
    value_dim: int = 16
    page: int = 16
    width: int = 5
    slots: int = 3
    dtype: torch.dtype = torch.float32
    coded: torch.dtype | None = None
    pairs: int | None = None
    ordered: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        make = torch.Generator().manual_seed(self.seed)
        sequences, width = len(self.lengths), self.width
        tokens = sum(self.lengths)
        pool = sequences * self.heads * width + 3
        span = width * self.page

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=make).to(self.dtype)

        def below(limit: int, *shape: int) -> torch.Tensor:
            return torch.randint(limit, shape, generator=make)

        self.query = normal(tokens, self.heads * self.group, self.dim)
        self.position = (below(span, tokens) + 40).int()
        self.starts = torch.tensor([0, *torch.tensor(self.lengths).cumsum(0).tolist()], dtype=torch.int32)
        positions = below(span, pool, self.page).int() + 20
        positions[below(4, pool, self.page) == 0] = EMPTY
        stored: tuple[torch.Tensor, ...] = normal(pool, self.page, self.dim), normal(pool, self.page, self.value_dim)
        if self.coded:
            stored = parts_of(stored[0], stored[1], self.coded)
        self.keys, self.values = numbers_of(stored)
        self.pages = Pages(stored[0], stored[1], positions, *stored[2:])
        shape = (sequences, self.heads, width)
        pages = torch.randperm(pool, generator=make)[: sequences * self.heads * width].view(shape)
        if self.ordered:  # whole pages, one after the other, as a prompt that was read once has them
            every = torch.arange(span, dtype=torch.int32).view(width, self.page)
            positions[pages] = every
        counts = below(width + 1, sequences, self.heads).int()
        counts[0, 0] = width
        alive = below(2**16, *shape, 4).long()
        bits = alive[..., 0] | (alive[..., 1] << 16) | (alive[..., 2] << 32) | (alive[..., 3] << 48)
        bits[below(2, *shape) == 0] = -1
        slots = below(self.slots, *shape).sort(-1).values
        if self.ordered:
            bits[:] = -1
        # Views into larger buffers whose remainder holds what must not be read.
        self.references = References(
            _inside(pages.int(), 2**30),
            _inside(slots.int(), 2**30),
            _inside(bits, 7),
            _inside(counts[..., None], 0)[..., 0],
        )
        for s in range(sequences):
            for h in range(self.heads):
                self.references.pages[s, h, int(counts[s, h]) :] = 2**30
        pairs = self.dim // 2 if self.pairs is None else self.pairs
        angle = torch.rand(sequences, self.slots, pairs, generator=make) * 6
        angle[:, 0] = 0
        shifts = (below(40, sequences, self.slots) - 20).int()
        shifts[:, 0] = 0
        self.turns = Turns(angle.cos(), angle.sin(), shifts)


def _inside(tensor: torch.Tensor, beyond: int) -> torch.Tensor:
    larger = tensor.new_full((3, *tensor.shape[:2], tensor.shape[2] + 2), beyond)
    larger[1, :, :, : tensor.shape[2]] = tensor
    return larger[1, :, :, : tensor.shape[2]]


def attend(
    case: Case, scale: float, window: int | None = None, softcap: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output `[T, Hq, V]` and log-sum-exp `[T, Hq]`, in float64."""
    out = torch.zeros(*case.query.shape[:2], case.value_dim, dtype=torch.float64)
    lse = torch.full(case.query.shape[:2], -torch.inf, dtype=torch.float64)
    for s in range(len(case.lengths)):
        own = slice(int(case.starts[s]), int(case.starts[s + 1]))
        for h in range(case.heads):
            group = slice(h * case.group, (h + 1) * case.group)
            if case.references.counts[s, h] and case.lengths[s]:
                scores, values = _stream(case, s, h, case.query[own, group], scale, window, softcap)
                lse[own, group] = torch.logsumexp(scores, -1)
                out[own, group] = torch.softmax(scores, -1).nan_to_num(0) @ values
    return out, lse


def _stream(
    case: Case, s: int, h: int, query: torch.Tensor, scale: float, window: int | None, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores `[tokens, group, entries]` (-inf where not seen) and values `[entries, V]` of one stream."""
    references, turns = case.references, case.turns
    pairs = turns.cosines.shape[2]
    at = case.position[int(case.starts[s]) : int(case.starts[s + 1]), None].long()
    first, second, rest = query.double().tensor_split((pairs, 2 * pairs), -1)
    scores, values = [], []
    for n in range(int(references.counts[s, h])):
        page, slot = int(references.pages[s, h, n]), int(references.slots[s, h, n])
        cos, sin = turns.cosines[s, slot].double(), turns.sines[s, slot].double()
        turned = torch.cat([first * cos + second * sin, second * cos - first * sin, rest], -1)
        stored = case.pages.positions[page].long()
        alive = torch.tensor([int(references.alive[s, h, n]) >> t & 1 for t in range(case.page)]).bool()
        where = (stored + int(turns.shifts[s, slot]))[None]
        seen = (alive & (stored != EMPTY))[None] & (where <= at)
        if window is not None:
            seen = seen & (where > at - window)
        score = turned @ case.keys[page].double().T * scale
        score = score if softcap is None else softcap * torch.tanh(score / softcap)
        scores.append(score.masked_fill(~seen[:, None], -torch.inf))
        values.append(case.values[page].double())
    return torch.cat(scores, -1), torch.cat(values)
