"""What the tokens of a question look at: their attention, summed for each token that was read before."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.attention.rotation import Rotation
from longreach.attention.step import Step
from longreach.attention.tree import Tree, TreeStep
from longreach.kv.segment import Segment


class LookingStep(TreeStep):
    """Tokens that follow a sequence without becoming part of it. `weights` has for each of `segments`, whole ones of
    the sequence, the attention `[tokens]` (float32) that its tokens get: a mean over layers, query heads and the tokens
    that look, after the softmax over everything that they see."""

    def __init__(self, inner: Step, tree: Tree, positions: Many[int], segments: Many[Segment]) -> None:
        new, device = len(positions), inner.pool.keys.device
        super().__init__(inner, tree, positions, torch.ones(new, new, dtype=torch.bool, device=device).tril())
        self._segments = segments
        self._layers = tree.sequence.layers
        self.weights = [torch.zeros(len(segment), device=device) for segment in segments]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        output, lse = super().attend(layer, query, key, value, scores)
        for segment, weights in zip(self._segments, self.weights, strict=True):
            seen = _weights(query, lse, segment, layer, scores, self._inner.rotations[layer])
            weights += seen / self._layers
        return output, lse


def _weights(
    query: torch.Tensor, lse: torch.Tensor, segment: Segment, layer: int, scores: Scores, rotation: Rotation
) -> torch.Tensor:
    """The mean attention `[tokens]` of `query [new, heads, dim]`, whose scores' log-sum-exp is `lse [new, heads]`, to
    the tokens of a segment."""
    pool, table = segment.pool, segment.table[layer]
    heads, columns = table.shape
    keys = pool.keys[pool.index(table.reshape(-1))].view(heads, columns * pool.page_size, -1)[:, : len(segment)]
    new, group = query.shape[0], query.shape[1] // heads
    turned = rotation.turn(query, -segment.shift).view(new, heads, group, -1).transpose(0, 1).flatten(1, 2)
    logits = (turned.to(keys.dtype) @ keys.transpose(1, 2)).float() * scores.scale
    if scores.softcap is not None:
        logits = scores.softcap * torch.tanh(logits / scores.softcap)
    normaliser = lse.view(new, heads, group).transpose(0, 1).flatten(1, 2)[..., None]
    return torch.exp(logits - normaliser).sum((0, 1)) / (new * query.shape[1])
