"""Which pages are free, as runs of neighbours."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

Pages = NDArray[np.int32]


class FreePages:
    """The free ones of pages `0 .. total - 1`. Neighbours are handed out together where that is possible: a processor
    then sees them as one strided tensor."""

    def __init__(self, total: int) -> None:
        self._starts = [0] if total else []
        self._lengths = {0: total} if total else {}
        self.count = total

    def take(self, n: int) -> Pages:
        """`n` pages, at most `count`: one run if there is one, otherwise the longest runs first."""
        assert 0 <= n <= self.count
        fitting = next((start for start in self._starts if self._lengths[start] >= n), None)
        if fitting is not None or n == 0:
            return self._cut(fitting, n) if fitting is not None else np.empty(0, np.int32)
        taken: list[Pages] = []
        for start in sorted(self._starts, key=lambda start: -self._lengths[start]):
            part = min(n, self._lengths[start])
            taken.append(self._cut(start, part))
            n -= part
            if n == 0:
                break
        return np.concatenate(taken)

    def put(self, pages: Pages) -> None:
        """Give pages back; each is one that was taken."""
        ordered = np.sort(pages)
        ends = np.flatnonzero(np.diff(ordered) != 1) + 1
        for run in np.split(ordered, ends):
            if len(run):
                self._join(int(run[0]), len(run))

    def all(self) -> Pages:
        """Every free page, in order."""
        runs = [np.arange(start, start + self._lengths[start], dtype=np.int32) for start in self._starts]
        return np.concatenate(runs) if runs else np.empty(0, np.int32)

    def _cut(self, start: int, n: int) -> Pages:
        length = self._lengths.pop(start)
        at = bisect.bisect_left(self._starts, start)
        if length == n:
            del self._starts[at]
        else:
            self._starts[at] = start + n
            self._lengths[start + n] = length - n
        self.count -= n
        return np.arange(start, start + n, dtype=np.int32)

    def _join(self, start: int, length: int) -> None:
        self.count += length
        at = bisect.bisect_left(self._starts, start)
        after = self._starts[at] if at < len(self._starts) else None
        if after == start + length:
            length += self._lengths.pop(after)
            del self._starts[at]
        before = self._starts[at - 1] if at else None
        if before is not None and before + self._lengths[before] == start:
            self._lengths[before] += length
        else:
            self._starts.insert(at, start)
            self._lengths[start] = length
