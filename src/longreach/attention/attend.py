"""What attention over pages means, written plainly: the definition that every kernel must equal.

It gathers keys and values, head by head; nothing here is meant to be quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from longreach.attention.merge import Part
from longreach.attention.rotation import Rotation
from longreach.kv.pool import EMPTY, PagePool


@dataclass(frozen=True)
class Scores:
    """How scores are made of products: times `scale`, then `softcap * tanh(score / softcap)`; a query sees the last
    `window` positions, its own among them."""

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True)
class PageRef:
    """A page as one stream of one sequence uses it: its entries count as `shift` places further on than where they were
    computed; `alive [page_size]` (bool) hides those that are not to be seen, None hides none."""

    page: int
    shift: int = 0
    alive: torch.Tensor | None = None


def attend(
    query: torch.Tensor,
    positions: torch.Tensor,
    pool: PagePool,
    streams: Sequence[Sequence[PageRef]],
    scores: Scores,
    rotation: Rotation,
) -> Part:
    """Attention of the new tokens of one sequence in one layer.

    `query [tokens, heads, dim]` at `positions [tokens]`; `streams` holds the page references of each KV head, which
    serves `heads / len(streams)` neighbouring query heads. A query sees an entry that is alive, whose shifted position
    is not after its own, and within the window; entries may lie in any order. Returns the output `[tokens, heads, dim]`
    and the log-sum-exp `[tokens, heads]` in float32; 0 and -inf where a query sees nothing.
    """
    group = query.shape[1] // len(streams)
    outputs, sums = [], []
    for head, stream in enumerate(streams):
        own = query[:, head * group : (head + 1) * group].float()
        logits, values = [own.new_empty(*own.shape[:2], 0)], [own.new_empty(0, pool.value_dim)]
        for ref in stream:
            turned = rotation.turn(own, -ref.shift)
            keys, value = (x.float() for x in pool.read(ref.page))
            logit = turned @ keys.T * scores.scale
            if scores.softcap:
                logit = scores.softcap * torch.tanh(logit / scores.softcap)
            logits.append(
                logit.masked_fill(~_seen(positions, pool.positions[ref.page], ref, scores)[:, None], -torch.inf)
            )
            values.append(value)
        logit = torch.cat(logits, -1)
        lse = torch.logsumexp(logit, -1) if logit.shape[-1] else torch.full(own.shape[:2], -torch.inf)
        weights = torch.exp(logit - lse.clamp_min(torch.finfo(lse.dtype).min)[..., None])
        outputs.append((weights @ torch.cat(values)).to(query.dtype))
        sums.append(lse)
    return torch.cat(outputs, 1), torch.cat(sums, 1)


def _seen(positions: torch.Tensor, stored: torch.Tensor, ref: PageRef, scores: Scores) -> torch.Tensor:
    """`[tokens, page_size]`: which entry which token sees."""
    at = stored.long() + ref.shift
    seen = (at[None] <= positions[:, None]) & (stored != EMPTY)[None]
    if scores.window is not None:
        seen &= at[None] > positions[:, None] - scores.window
    return seen if ref.alive is None else seen & ref.alive[None]
