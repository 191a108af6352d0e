"""Retrieval heads: the scores are those of the model's own attention weights."""

from __future__ import annotations

import torch

from families import exact, fresh
from longreach.model.bridge import Bridge
from longreach.model.heads import HeadScores, retrieval_heads, score_heads


def test_scores_are_those_of_the_models_own_weights() -> None:
    found = score_heads(Bridge(fresh("qwen2")), length=10, repeats=3, seed=1)
    tokens = torch.randint(0, 97, (10,), generator=torch.Generator().manual_seed(1)).repeat(3)
    with torch.inference_mode():
        weights = torch.stack(exact("qwen2")(tokens[None], output_attentions=True).attentions)[:, 0]
    later = torch.arange(10, 30)
    assert torch.allclose(found.echo, weights[:, :, later, later - 10].mean(-1), atol=1e-5)
    assert torch.allclose(found.induction, weights[:, :, later, later - 9].mean(-1), atol=1e-5)


def test_the_heads_with_the_greatest_scores_keep_the_text() -> None:
    echo, induction = torch.zeros(3, 8), torch.zeros(3, 8)
    echo[2, 7], induction[0, 2], induction[1, 0] = 1.0, 0.9, 0.8
    heads = retrieval_heads(HeadScores(echo, induction), kv_heads=4, echo=0.04, induction=0.08)
    assert heads == ((0, 1), (1, 0), (2, 3))
