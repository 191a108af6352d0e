"""Segments: runs of tokens with their pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.coding import numbers_of
from longreach.kv.free import Pages
from longreach.kv.paged import neighbours
from longreach.kv.pool import PagePool
from longreach.kv.temper import Temper


@dataclass(frozen=True, slots=True)
class Run:
    """Pages that a processor can see as one tensor: for each of `heads` KV heads from `head` on, neighbouring pages
    that begin at page `base`, as far apart from head to head. `first` is the stream's entry they begin with, and they
    have room for `room` entries: `stored`, what the pool has stored of them, each `[heads, room, ..]` and seen where it
    lies, of which `keys` and `values` are the first two."""

    head: int
    heads: int
    base: int
    first: int
    room: int
    stored: tuple[torch.Tensor, ...]
    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, pool: PagePool, head: int, pages: Pages, stride: int, first: int, count: int) -> Run:
        """`count` neighbours from each of `pages [heads]` on, which are `stride` pages apart."""
        base, room = int(pages[0]), count * pool.page_size
        shape = len(pages), room
        stored = tuple(_seen(x, base, stride, shape) for x in pool.stored)
        return cls(head, len(pages), base, first, room, stored, *stored[:2])

    def read(self, low: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[heads, entries, dim]` of the entries `low .. end - 1`: where they lie, or in float32 where
        they are kept in 8 or 4 bits."""
        return numbers_of([x.narrow(1, low, end - low) for x in self.stored])


@dataclass(eq=False)
class Segment:
    """`tokens` with their keys and values in the streams of all layers and KV heads; holds its pages until `release`.

    `table [layers, heads, columns]` are page numbers, -1 where a stream has none; `entries [layers, heads]` says how
    many entries each stream has, packed from its first page on; pages that a layer let go of (`leave`) are -1 before
    the first one it has. They stand at the positions stored with them, `shift`
    places further on; `start` is the stored position of the first token. `alive [tokens]` hides tokens (None: hides
    none; only where every stream has an entry for every token). `source` is where the text came from. `outward`: see
    `longreach.kv.store.entry.Entry`. With a `temper` it stands side by side with others that have it too.
    """

    pool: PagePool
    table: Pages
    entries: NDArray[np.int32]
    start: int = 0
    shift: int = 0
    tokens: list[int] = field(default_factory=list)
    alive: NDArray[np.bool_] | None = None
    source: object = None
    whole: bool = True
    outward: torch.Tensor | None = None
    temper: Temper | None = None
    _runs: dict[int, list[Run]] = field(default_factory=dict, repr=False)
    """By layer, as far as they were asked for; the same for all that share the pages, until one has others."""

    @classmethod
    def new(cls, pool: PagePool, layers: int, heads: int, start: int, source: object = None) -> Segment:
        """A segment without tokens and pages."""
        return cls(
            pool, np.empty((layers, heads, 0), np.int32), np.zeros((layers, heads), np.int32), start, source=source
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def end(self) -> int:
        """The position after the last token, where the segment is used."""
        return self.start + self.shift + len(self.tokens)

    @property
    def room(self) -> int:
        """How many tokens more the pages can take."""
        return int(self.table.shape[2]) * self.pool.page_size - len(self.tokens)

    @property
    def pages(self) -> Pages:
        """Every page, once."""
        return self.table[self.table >= 0]

    @property
    def complete(self) -> bool:
        """Whether every stream has every token."""
        return self.whole and bool((self.table >= 0).all())

    def reserve(self, tokens: int) -> None:
        """Pages for `tokens` tokens more. Raises OutOfPagesError, and changes nothing, where the pool has too few."""
        missing = -(-(tokens - self.room) // self.pool.page_size)
        if missing > 0:
            layers, heads, _ = self.table.shape
            taken = self.pool.take(layers * heads * missing).reshape(layers, heads, missing)
            self.table = np.concatenate([self.table, taken], 2)
            self._runs = {}

    def append(self, tokens: Sequence[int]) -> int:
        """Count `tokens`, whose keys and values are about to be written, in; there must be room. Returns the entry of
        the first."""
        first = len(self.tokens)
        assert len(tokens) <= self.room
        self.tokens.extend(tokens)
        self.entries += len(tokens)
        return first

    def leave(self, layers: NDArray[np.intp], tokens: int) -> int:
        """Let go of the pages of `layers` that hold none but the first `tokens` tokens: they are not looked at any
        more. Returns how many pages those were."""
        assert self.whole
        size, count = self.pool.page_size, len(self.tokens)
        columns = -(-count // size) if tokens >= count else tokens // size
        if columns <= 0 or self.table[layers[0], 0, columns - 1] < 0:
            return 0
        left = self.table[layers, :, :columns]
        self.table[layers, :, :columns] = -1
        self._runs = {}
        left = left[left >= 0]
        self.pool.release(left)
        return len(left)

    def runs(self, layer: int) -> list[Run]:
        """The pages of `layer`, in as few runs as there are."""
        if layer not in self._runs:
            if neighbours(self.table):
                self._runs.update(enumerate(_blocks(self.pool, self.table)))
            else:
                self._runs[layer] = _runs(self.pool, self.table[layer])
        return self._runs[layer]

    def share(self, tokens: int | None = None) -> Segment:
        """The same pages held once more, for the first `tokens` tokens (all): what is written to them later is not seen
        there. A part of a segment can be had only while it is whole."""
        n = len(self.tokens) if tokens is None else tokens
        assert n == len(self.tokens) or self.whole
        columns = -(-n // self.pool.page_size) if self.whole else self.table.shape[2]
        table = self.table[:, :, :columns].copy()
        entries = np.minimum(self.entries, n) if self.whole else self.entries.copy()
        alive = None if self.alive is None else self.alive[:n].copy()
        twin = Segment(
            self.pool, table, entries, self.start, self.shift, self.tokens[:n], alive, self.source, self.whole
        )
        twin.temper = self.temper
        twin.outward = None if self.outward is None else self.outward[:n]
        if columns == self.table.shape[2]:
            twin._runs = self._runs
        self.pool.share(twin.pages)
        return twin

    def renumber(self, table: Pages) -> None:
        """Other pages with the same entries take the place of those held until now."""
        self.table = table
        self._runs = {}

    def release(self) -> int:
        """Let go of the pages. Returns how many became free."""
        freed = self.pool.release(self.pages)
        self.table = self.table[:, :, :0]
        self.entries = np.zeros_like(self.entries)
        self.tokens = []
        self._runs = {}
        return freed


def _seen(tensor: torch.Tensor, base: int, stride: int, shape: tuple[int, int]) -> torch.Tensor:
    size, dim = tensor.shape[1:]
    return tensor.as_strided((*shape, dim), (stride * size * dim, dim, 1), base * size * dim)


def _blocks(pool: PagePool, table: Pages) -> list[list[Run]]:
    """The runs of each layer, where all pages are neighbours: what takes long is done for all layers at once."""
    layers, heads, columns = table.shape
    base, room = int(table[0, 0, 0]), columns * pool.page_size
    seen = [x[base : base + table.size].view(layers, heads, room, x.shape[-1]).unbind() for x in pool.stored]
    return [
        [Run(0, heads, base + layer * heads * columns, 0, room, stored, *stored[:2])]
        for layer, stored in enumerate(zip(*seen, strict=True))
    ]


def _runs(pool: PagePool, pages: Pages, first: int = 0) -> list[Run]:
    """`pages [heads, columns]`, of which the first begins with the entry `first`, as runs."""
    heads, columns = pages.shape
    if columns == 0:
        return []
    there = pages >= 0
    if not there.all():
        left = int(there[0].argmax())
        if left and there[:, left:].all() and not there[:, :left].any():
            return _runs(pool, pages[:, left:], first + left * pool.page_size)
        return [run for head in range(heads) for run in _runs_of(pool, pages[head][pages[head] >= 0], head)]
    cuts = np.flatnonzero((np.diff(pages, axis=1) != 1).any(0)) + 1
    found = []
    for begin, end in zip([0, *cuts], [*cuts, columns], strict=True):
        apart = np.diff(pages[:, begin])
        at, count = first + int(begin) * pool.page_size, int(end - begin)
        if len(set(apart.tolist())) <= 1 and (heads == 1 or apart[0] > 0):
            found.append(Run.of(pool, 0, pages[:, begin], int(apart[0]) if heads > 1 else 1, at, count))
        else:
            found += [Run.of(pool, head, pages[head : head + 1, begin], 1, at, count) for head in range(heads)]
    return found


def _runs_of(pool: PagePool, pages: Pages, head: int) -> list[Run]:
    """`pages` of one head as runs."""
    cuts = np.flatnonzero(np.diff(pages) != 1) + 1
    parts = zip([0, *cuts], [*cuts, len(pages)], strict=True)
    return [Run.of(pool, head, pages[a : a + 1], 1, int(a) * pool.page_size, int(b - a)) for a, b in parts if b > a]
