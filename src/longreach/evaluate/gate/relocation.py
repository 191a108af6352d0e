"""How exactly a model's keys can be moved."""

from __future__ import annotations

from collections.abc import Sequence

from longreach.engine import ROOT
from longreach.engine.exploration import Exploration
from longreach.engine.paged import PagedEngine
from longreach.evaluate.metrics.fidelity import kl_divergence
from longreach.kv.sequence import Sequence as KVSequence

MOST, ASKED = 256, 8
"""Tokens that are moved, and that are read behind them."""


def relocation_error(engine: PagedEngine, tokens: Sequence[int]) -> float | None:
    """The worst KL, in nats, of the next few tokens, from where the beginning of `tokens` stands where it was read to
    where it was moved elsewhere: what there is of it is rounding. None for a model whose keys cannot be moved."""
    if not engine.bridge.relocatable:
        return None
    moved = list(tokens)[: min(MOST, len(tokens) - ASKED, engine.context_length // 4)]
    asked = list(tokens)[len(moved) : len(moved) + ASKED]
    path = [(ROOT if at == 0 else at - 1, token) for at, token in enumerate(asked)]
    there = engine.explore(moved)
    _, near = there.expand(path)
    worst = 0.0
    for shift in (1, len(moved), engine.context_length - len(moved) - 2 * ASKED):
        sequence = KVSequence(engine.pool, engine.bridge.shapes.layers, engine.bridge.shapes.kv_heads)
        for segment in there.tree.sequence.share(len(moved)):
            segment.shift = shift
            sequence.add(segment)
        try:
            _, far = Exploration(engine, sequence, len(moved), there.root).expand(path)
        finally:
            sequence.release()
        worst = max(worst, float(kl_divergence(near.cpu().numpy(), far.cpu().numpy()).max()))
    return worst
