"""`gaze`: what the question looks at and what depends on its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.errors import InputError
from longreach.kv.reuse.reuse import Lead, Reuse, StoredTokens, check_share, deepest, reuses


@reuses.register("gaze")
@dataclass
class Gaze(Reuse):
    """The tokens whose staleness the question would notice most are computed again.

    An entry that is off by d moves what a query reads by about its attention a to it times d. The attention is had by
    one pass of the question over the chunks as they are stored. The deviation cannot be known without computing, but
    how readily a token's keys and values change with what stands before it can be noted when its chunk is read:
    `unsteady`, see `StoredTokens`. The score of token i is

        s_i = sum over layers l of  a_li * unsteady_li

    with a_li averaged over heads and the question's tokens. Chunks are read behind filler, not right behind the prefix:
    a chunk that was read as the first of a prompt takes itself for its beginning, and its first tokens for sinks.
    """

    lead: ClassVar[Lead] = "filler"
    looks: ClassVar[bool] = True
    share: float = 0.15

    def __post_init__(self) -> None:
        check_share(self.share)

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        if stored.question is None or stored.unsteady is None:
            raise InputError("gaze needs the question's attention and what was noted when the chunks were read")
        return deepest(gazed(stored.question.weights, stored.unsteady), self.share, stored.layers)


def gazed(weights: torch.Tensor, unsteady: torch.Tensor) -> torch.Tensor:
    """Scores `[tokens]` from attention `[layers looked through, heads, question tokens, tokens]` and `unsteady [layers,
    tokens]`."""
    attention = weights.float().mean((1, 2))
    return (attention * unsteady[: len(attention)].float()).sum(0)


def unsteadiness(behind_prefix: torch.Tensor, behind_filler: torch.Tensor) -> torch.Tensor:
    """How much keys or values `[layers, kv_heads, tokens, dim]` of a chunk change with what it is read behind: squared
    difference over the mean square of the layer's, `[layers, tokens]`. Keys must be turned to the same place."""
    change = (behind_prefix - behind_filler).float().square().sum((1, 3))
    size = behind_filler.float().square().sum((1, 3)).mean(1, keepdim=True)
    return change / size.clamp(min=1e-12)
