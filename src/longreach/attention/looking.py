"""What the tokens of a question look at: their attention, summed for each token that was read before."""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
import torch

from longreach.attention.attend import Scores
from longreach.attention.gathered import Gathered, logits_of
from longreach.attention.merge import Part
from longreach.attention.rotation import Rotation
from longreach.attention.step import Row
from longreach.attention.tree import nodes
from longreach.errors import UnsupportedError
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence


class LookingStep:
    """`tokens` that follow a sequence without becoming part of it. Raises UnsupportedError where the streams of the
    sequence do not have the same entries."""

    def __init__(self, rotations: Many[Rotation], sequence: Sequence, tokens: int) -> None:
        seen = Gathered.of(Row(sequence, 0, tokens, sequence.position, 0), before=False)
        if seen is None:
            raise UnsupportedError("a question cannot look at what has other entries in some streams, or none at all")
        self._seen = seen
        self._rotations = rotations
        device = sequence.pool.keys.device
        self._own = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
        self._weights = torch.zeros(sequence.layers, len(seen.positions), device=device)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Step.attend`."""
        keys, values = self._seen.bring(layer, self._rotations[layer])
        (new, heads, _), group = query.shape, query.shape[1] // len(keys)
        output, lse = nodes(query, key, value, self._own, scores)
        for block in self._seen.blocks(scores.window, group):
            count = block.tokens.stop - block.tokens.start
            logits = logits_of(query[block.tokens], keys, block, scores)
            before = torch.logsumexp(logits, -1).view(len(keys), count, group).transpose(0, 1).reshape(count, heads)
            among = lse[block.tokens]
            total = torch.logaddexp(before, among)
            laid = total.view(count, len(keys), group).transpose(0, 1).reshape(len(keys), -1, 1)
            weights = logits.sub_(laid).exp_()
            self._weights[layer, block.entries] += weights.sum((0, 1)) / (new * heads)
            past = (weights @ values[:, block.entries]).view(len(keys), count, group, -1).transpose(0, 1)
            kept = output[block.tokens] * torch.exp(among - total)[..., None].to(output.dtype)
            output[block.tokens] = kept + past.reshape(count, heads, -1).to(output.dtype)
            lse[block.tokens] = total
        return output, lse

    def weights(self, segments: Many[Segment]) -> list[torch.Tensor]:
        """For each of some segments of the sequence the attention `[layers, tokens]` (float32) that its tokens got: a
        mean over query heads and the tokens that look, after the softmax over everything that they see."""
        ends = np.cumsum([count for _, count in self._seen.segments])
        found = {id(one): (int(end), count) for (one, count), end in zip(self._seen.segments, ends, strict=True)}
        return [self._weights[:, end - count : end] for end, count in (found[id(segment)] for segment in segments)]
