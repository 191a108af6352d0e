"""How much new tokens attend to a text before them, noted while they are read."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from longreach.attention.attend import Scores
from longreach.attention.gathered import Gathered, logits_of
from longreach.attention.merge import Part
from longreach.attention.rotation import Rotation
from longreach.attention.step import Row, Step
from longreach.errors import UnsupportedError
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence


class NotingStep:
    """The step `inner`, of whose tokens `outward [tokens]` (float32, on the processor) in the end says what share of
    its attention each gave to the segment `before`, which all its rows have: a mean over layers and query heads. Raises
    UnsupportedError where the streams of the segment do not have the same entries."""

    def __init__(self, inner: Step, before: Segment) -> None:
        self._inner = inner
        rows, layers = inner.rows, before.table.shape[0]
        places = tuple(int(at) for row in rows for at in row.places)
        alone = Sequence(before.pool, layers, before.table.shape[1], [before], before.end)
        seen = Gathered.of(Row(alone, 0, len(places), 0, 0, positions=places), before=False)
        if seen is None:
            raise UnsupportedError("it cannot be noted how much is attended to what has other entries in some streams")
        self._seen = seen
        self._rotations: Many[Rotation] = inner.rotations
        self._share = 1 / layers
        self._outward = torch.zeros(len(places), device=before.pool.keys.device)

    @property
    def outward(self) -> torch.Tensor:
        return self._outward.cpu()

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Step.attend`."""
        output, lse = self._inner.attend(layer, query, key, value, scores)
        keys, _ = self._seen.bring(layer, self._rotations[layer])
        heads = query.shape[1]
        for block in self._seen.blocks(scores.window, heads // len(keys)):
            part = torch.logsumexp(logits_of(query[block.tokens], keys, block, scores), -1)
            part = part.view(len(keys), -1, heads // len(keys)).transpose(0, 1).reshape(-1, heads)
            self._outward[block.tokens] += (part - lse[block.tokens]).exp().mean(1) * self._share
        return output, lse
