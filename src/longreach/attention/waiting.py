"""A step that attends to what is still on its way into pages, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.attention.step import Attends


class WaitingStep:
    """The step `inner`, which in each layer begins when `ready(layer)` returns; what that raises ends the forward."""

    def __init__(self, inner: Attends, ready: Callable[[int], None]) -> None:
        self._inner = inner
        self._ready = ready

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Step.attend`."""
        self._ready(layer)
        return self._inner.attend(layer, query, key, value, scores)
