"""Which heads need the whole text: those that find again what they have seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.model.bridge import Bridge
from longreach.model.plain import plain_part, plain_weights


@dataclass(frozen=True)
class HeadScores:
    """`echo`, `induction [layers, heads]`: how much of a token's attention goes to where it stood last, and to the
    token after that; 0 to 1."""

    echo: torch.Tensor
    induction: torch.Tensor


def score_heads(bridge: Bridge, length: int = 64, repeats: int = 4, seed: int = 0) -> HeadScores:
    """Let the model read `length` random tokens `repeats` times over, and see where its heads look (Tang et al. 2024,
    RazorAttention, arXiv 2407.15891)."""
    vocabulary = bridge.model.get_input_embeddings().num_embeddings
    once = torch.randint(0, vocabulary, (length,), generator=torch.Generator().manual_seed(seed))
    tokens = once.repeat(repeats).to(bridge.device)
    look = _Look(length)
    with torch.inference_mode():
        bridge.run(
            tokens, torch.arange(len(tokens), device=bridge.device), look, torch.tensor([0], device=bridge.device)
        )
    layers = sorted(look.echo)
    return HeadScores(
        torch.stack([look.echo[layer] for layer in layers]), torch.stack([look.induction[layer] for layer in layers])
    )


def retrieval_heads(
    scores: HeadScores, kv_heads: int, echo: float = 0.01, induction: float = 0.14
) -> tuple[tuple[int, int], ...]:
    """Pairs of layer and KV head that should keep the whole text: those of the `echo` share of query heads that echo
    most, and of the `induction` share with the greatest induction (the paper's shares)."""
    chosen: set[tuple[int, int]] = set()
    for values, share in ((scores.echo, echo), (scores.induction, induction)):
        heads = values.shape[1]
        for at in values.flatten().topk(max(1, round(share * values.numel()))).indices.tolist():
            chosen.add((at // heads, at % heads // (heads // kv_heads)))
    return tuple(sorted(chosen))


@dataclass
class _Look:
    """Attends plainly and notes how much goes to where a repetition would look."""

    length: int
    echo: dict[int, torch.Tensor] = field(default_factory=dict)
    induction: dict[int, torch.Tensor] = field(default_factory=dict)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        weights, lse = plain_weights(query, key, scores)
        at = torch.arange(len(query), device=query.device)
        later = at[self.length :]
        self.echo[layer] = weights[:, later, later - self.length].mean(1)
        self.induction[layer] = weights[:, later, later - self.length + 1].mean(1)
        return plain_part(weights, lse, value)
