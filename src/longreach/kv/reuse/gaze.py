"""`gaze`: what the question looks at and what depends on its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.errors import InputError
from longreach.kv.reuse.reuse import Lead, Reuse, StoredTokens, check_share, deepest, reuses

NEAR = 10
"""Tokens of its own chunk from which on a token leans on them about as much as on what stands before the chunk."""


@reuses.register("gaze")
@dataclass
class Gaze(Reuse):
    """What the question would notice most if it stayed stale is computed again.

    An entry that is off by d moves what a query reads by about its attention a to it times d. The attention is had by
    one pass of the question over the chunks as they are stored. The deviation cannot be known without computing, but
    how readily a token's keys and values change with what stands before it can be noted when its chunk is read:
    `unsteady`, see `StoredTokens`. Where nothing was noted, it is taken to fall with what a token sees of its own
    chunk. The score of token i is

        s_i = a_i * unsteady_i,  else  a_i / sqrt(1 + t_i / NEAR)

    with t_i its place in its chunk, and a_i the root of its attention, averaged over heads and the question's tokens,
    in the mean over the deeper half of the layers: those look at what the answer is made of, and the root keeps a
    single layer from deciding. Chunks are best read behind filler, not right behind the prefix: see
    `longreach.kv.reuse.filler`.
    """

    looks: ClassVar[bool] = True
    share: float = 0.15
    lead: Lead = "filler"

    def __post_init__(self) -> None:
        check_share(self.share)

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        if stored.question is None:
            raise InputError("gaze needs the question's attention")
        looked = stored.question.weights.float().mean((1, 2))
        scores = looked[len(looked) // 2 :].sqrt().mean(0)
        if stored.unsteady is not None:
            unsteady = stored.unsteady.float()
        else:
            places = torch.cat([torch.arange(end - begin) for begin, end in stored.chunks]).to(scores.device)
            unsteady = torch.rsqrt(1 + places / NEAR)
        return deepest(scores * unsteady, self.share, stored.layers)


def unsteadiness(behind_prefix: torch.Tensor, behind_filler: torch.Tensor) -> torch.Tensor:
    """How much keys or values `[layers, kv_heads, tokens, dim]` of a chunk change with what it is read behind: squared
    difference over the layer's mean square, averaged over layers, `[tokens]`. Keys must be turned to one place."""
    change = (behind_prefix - behind_filler).float().square().sum((1, 3))
    size = behind_filler.float().square().sum((1, 3)).mean(1, keepdim=True)
    return (change / size.clamp(min=1e-12)).mean(0)
