"""Steps of tiny models, outside an engine."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from families import fresh
from longreach.attention.step import Step, begin
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence
from longreach.model.bridge import Bridge

TOLERANCE = 1e-4
_bridges: dict[str, Bridge] = {}


def bridge_of(family: str) -> Bridge:
    if family not in _bridges:
        _bridges[family] = Bridge(fresh(family))
    return _bridges[family]


def pool_of(bridge: Bridge, pages: int = 3000, page_size: int = 16, dtype: torch.dtype = torch.float32) -> PagePool:
    return PagePool(pages, page_size, bridge.shapes.head_dim, value_dim=bridge.shapes.value_dim, dtype=dtype)


def sequence_of(bridge: Bridge, pool: PagePool) -> Sequence:
    return Sequence(pool, bridge.shapes.layers, bridge.shapes.kv_heads)


def read(bridge: Bridge, kind: type[Step], rows: Many[tuple[Sequence, torch.Tensor]]) -> list[torch.Tensor]:
    """Logits after every new token of each sequence, of one step."""
    for sequence, tokens in rows:
        sequence.reserve(len(tokens))
    begun = begin([(sequence, tokens.tolist()) for sequence, tokens in rows])
    positions = torch.cat([torch.arange(row.position, row.position + row.count) for row in begun])
    step = kind(begun[0].sequence.pool, bridge.rotations, begun)
    with torch.inference_mode():
        logits = bridge.run(torch.cat([tokens for _, tokens in rows]), positions, step, torch.arange(len(positions)))
    return list(logits.split([row.count for row in begun]))


def tokens(n: int, seed: int) -> torch.Tensor:
    return torch.randint(3, 97, (n,), generator=torch.Generator().manual_seed(seed))
