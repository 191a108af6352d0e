"""The page pool: all memory for keys and values of one device, and who holds which page of it."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch

from longreach.errors import LongreachError
from longreach.kv.coding import CODINGS, channels_of, entry_bytes, numbers_of, parts_of, width_of
from longreach.kv.free import FreePages, Pages
from longreach.kv.int8 import SCALES

EMPTY = 2**31 - 1
"""The position of an entry that was not written: no query comes after it."""


class OutOfPagesError(LongreachError):
    """The pool has fewer free pages than are needed."""


class PagePool:
    """`pages` pages of `page_size` entries each. An entry is the key and the value of one token in one layer and one
    KV head: `keys[pages, page_size, head_dim]`, `values` alike, `positions[pages, page_size]` (int32) where the token
    stood when its key was computed. `stored` is all that says what keys and values are: these two, and where they are
    kept in 8 or 4 bits (`dtype` int8 or uint8; then of half the width) their scales, `[pages, page_size, 1]` each
    (`kv/coding.py`).

    A page is free, or held as often as `counts` says. Not safe for several threads: the engine has one that runs.
    """

    def __init__(
        self,
        pages: int,
        page_size: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        value_dim: int | None = None,
    ) -> None:
        # Zeros: what was never written is multiplied with a weight of zero, which not a number would survive.
        self.keys, self.values = (
            _zeros((pages, page_size, width_of(dim, dtype)), dtype, device) for dim in (head_dim, value_dim or head_dim)
        )
        self.stored: tuple[torch.Tensor, ...] = self.keys, self.values
        if dtype in CODINGS:
            self.stored += tuple(_zeros((pages, page_size, 1), SCALES, device) for _ in range(2))
        self.positions = _zeros((pages, page_size), torch.int32, device)
        self.page_size = page_size
        self.counts = np.zeros(pages, np.int32)
        self._free = FreePages(pages)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def free(self) -> int:
        """How many pages nobody holds."""
        return self._free.count

    @property
    def used(self) -> int:
        """How many pages somebody holds."""
        return len(self) - self.free

    @cached_property
    def bounds(self) -> torch.Tensor:
        """Room for the least and the greatest value of each channel over the keys of a page, `[pages, 2, dim]`; taken
        when it is first asked for, beside what the pool was given."""
        return self.keys.new_zeros(len(self), 2, self.head_dim, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """What `read` gives: float32 where keys and values are kept in 8 or 4 bits."""
        return torch.float32 if self.keys.dtype in CODINGS else self.keys.dtype

    @property
    def head_dim(self) -> int:
        """Channels of a key."""
        return channels_of(self.keys)

    @property
    def value_dim(self) -> int:
        """Channels of a value."""
        return channels_of(self.values)

    @property
    def page_bytes(self) -> int:
        """What one page takes: keys, values and positions."""
        return bytes_of_page(self.page_size, self.head_dim, self.value_dim, self.keys.dtype)

    @property
    def used_bytes(self) -> int:
        """What the pages that are held take."""
        return self.used * self.page_bytes

    def take(self, n: int) -> Pages:
        """`n` pages without entries, held once: neighbours where there are so many. Raises OutOfPagesError, and takes
        none, where fewer are free."""
        if n > self.free:
            raise OutOfPagesError(f"{n} pages of the KV pool are needed and {self.free} of {len(self)} are free")
        pages = self._free.take(n)
        self.counts[pages] = 1
        if n and pages[-1] - pages[0] == n - 1:
            self.positions[int(pages[0]) : int(pages[0]) + n] = EMPTY
        elif n:
            self.positions[self.index(pages)] = EMPTY
        return pages

    def share(self, pages: Pages) -> None:
        """Hold each of `pages`, which somebody holds already and of which none comes twice, once more."""
        assert bool((self.counts[pages] > 0).all()), "a page that nobody holds cannot be shared"
        self.counts[pages] += 1

    def release(self, pages: Pages) -> int:
        """Let go of each of `pages`, of which none comes twice. Returns how many became free."""
        assert bool((self.counts[pages] > 0).all()), "a page that nobody holds cannot be let go of"
        self.counts[pages] -= 1
        freed = pages[self.counts[pages] == 0]
        self._free.put(freed)
        return len(freed)

    def read(self, where: int | slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the pages `where`, an index; in float32 where they are kept in 8 or 4 bits."""
        return numbers_of([stored[where] for stored in self.stored])

    def write(
        self, where: slice | torch.Tensor | tuple[torch.Tensor, int], keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Put keys and values where an index into pages, or pages and entries, says. What was read is stored as it
        was."""
        for stored, part in zip(self.stored, parts_of(keys, values, self.keys.dtype), strict=True):
            stored[where] = part.to(stored.device, stored.dtype)

    def scrub(self, pages: Pages) -> None:
        """Make the entries of those of `pages` that are held once numbers again, after a computation that gave none."""
        where = self.index(pages[self.counts[pages] == 1])
        for stored in self.stored:
            stored[where] = 0

    def index(self, pages: Pages) -> torch.Tensor:
        """`pages` as an index into the tensors of the pool."""
        return torch.from_numpy(np.ascontiguousarray(pages, np.int64)).to(self.keys.device)

    def check(self) -> None:
        """AssertionError unless every page is free or held, and none both."""
        free = self._free.all()
        assert len(np.unique(free)) == len(free) == self.free
        assert bool((self.counts[free] == 0).all())
        assert int((self.counts > 0).sum()) == self.used


def bytes_of_page(page_size: int, head_dim: int, value_dim: int, dtype: torch.dtype) -> int:
    """What a page takes whose keys and values are kept in `dtype`, with the positions of its entries."""
    return (entry_bytes(head_dim, value_dim, dtype) + torch.int32.itemsize) * page_size


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """Zeros; on a processor memory that is taken only where it is touched."""
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)
