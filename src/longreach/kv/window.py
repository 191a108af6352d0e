"""Letting go of pages that left the window of a layer: no later token looks at them."""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np

from longreach.kv.sequence import Sequence


def leave(sequence: Sequence, windows: Many[int | None]) -> int:
    """Let go, in every layer with a window (`windows[layer]`, in tokens; None: sees everything), of the pages whose
    tokens neither the last token of `sequence` nor any after it sees. Returns how many those were.

    Pages that others hold too, such as the prefix cache, are left to them, and are not free yet. Segments of which a
    policy dropped tokens stay as they are.
    """
    left = 0
    for window in {window for window in windows if window is not None}:
        layers = np.flatnonzero([own == window for own in windows])
        unseen = sequence.position - window
        for segment in sequence.segments:
            if segment.whole:
                left += segment.leave(layers, unseen - segment.start - segment.shift)
    sequence.version += left > 0
    return left
