"""Random numbers by their place, not by what was drawn before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Philox

BLOCK = 64


class Uniforms:
    """Numbers in [0, 1), the same at the same place for the same `seed` (below 2**64) and `sample`.

    Philox (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") is a function from a key and a counter to
    a number. So a draw depends on nothing but the seed and its place: not on what else is in the batch, on the device,
    or on whether a draft was tried and thrown away. One number a token is enough, since tokens are drawn by the inverse
    of the distribution function; it costs one transfer of 8 bytes a row, where noise for every token of the vocabulary
    (Gumbel) would have to be made on each device alike.
    """

    def __init__(self, seed: int, sample: int = 0) -> None:
        self._key = seed | sample << 64
        self._at = -1
        self._block: Sequence[float] = ()

    def __getitem__(self, place: int) -> float:
        block, at = divmod(place, BLOCK)
        if block != self._at:  # a block at a time: setting Philox up takes longer than drawing 64 numbers
            # Four numbers come from each value of the counter.
            words = Philox(key=self._key, counter=block * BLOCK // 4).random_raw(BLOCK)
            self._block = ((words >> np.uint64(11)) * 2.0**-53).tolist()
            self._at = block
        return self._block[at]
