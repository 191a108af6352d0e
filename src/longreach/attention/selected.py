"""Reading only some pages for each token, as a policy selects them."""

from __future__ import annotations

import numpy as np
import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part, merge
from longreach.attention.rotation import Rotation
from longreach.kv.policies import Policy
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence


class SelectedPages:
    """Reads of `sequence`, for one token at a time, the pages that `policy` selects, and the last one of each segment,
    which may be the one being written.

    The bounds of full pages are computed once, when they are first needed. Selected pages are gathered: no more than
    the budget is copied.
    """

    def __init__(self, policy: Policy, sequence: Sequence) -> None:
        self._policy = policy
        self._sequence = sequence
        self._bounded: tuple[int, int] | None = None
        self._bounds: dict[tuple[Segment, int], tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def wanted(self) -> int | None:
        """How many pages kernels read of each stream, the one being written included; None where they cannot choose."""
        pages = self._policy.pages(self._sequence.pool.page_size)
        return None if pages is None else pages + 1

    def unbounded(self) -> torch.Tensor | None:
        """The pages, int32, of whose bounds nothing is known in the pool yet; None where all are. What is written later
        is for the writer to see to."""
        now = self._sequence.version, len(self._sequence.segments)
        if now == self._bounded:
            return None
        self._bounded = now
        pages = [segment.pages for segment in self._sequence.segments]
        return torch.from_numpy(np.concatenate(pages)).to(self._sequence.pool.keys.device)

    def read(self, layer: int, query: torch.Tensor, position: int, scores: Scores, rotation: Rotation) -> Part:
        """See `Reader.read`."""
        parts = []
        for segment in self._sequence.segments:
            if len(segment):
                turned = rotation.turn(query[0], -segment.shift) if segment.shift else query[0]
                columns = self._columns(layer, segment, turned)
                parts.append(self._attend(layer, segment, turned, columns, position, scores))
        output, lse = merge(parts)
        return output[None], lse[None]

    def _columns(self, layer: int, segment: Segment, query: torch.Tensor) -> torch.Tensor:
        """Which pages of each stream are read, `[kv_heads, some]`: those selected, then the last one."""
        size = segment.pool.page_size
        full = (len(segment) - 1) // size
        last = torch.full((self._sequence.heads, 1), full, device=query.device)
        if not full:
            return last
        low, high = self._bounds_of(layer, segment, full)
        return torch.cat([self._policy.select(query, low, high, size), last], 1)

    def _attend(
        self, layer: int, segment: Segment, query: torch.Tensor, columns: torch.Tensor, position: int, scores: Scores
    ) -> Part:
        """Attention of `query [heads, dim]` to the pages `columns [kv_heads, some]` of each stream."""
        pool, heads = segment.pool, self._sequence.heads
        table = pool.index(segment.table[layer].reshape(-1)).view(heads, -1)
        pages = table.gather(1, columns).flatten()
        keys, values = (x.view(heads, -1, x.shape[2]).float() for x in pool.read(pages))
        own = query.float().view(heads, -1, query.shape[-1])
        logits = own @ keys.transpose(-1, -2) * scores.scale
        if scores.softcap is not None:
            logits = scores.softcap * torch.tanh(logits / scores.softcap)
        at = pool.positions[pages].view(heads, -1) + segment.shift
        entry = (columns[..., None] * pool.page_size + torch.arange(pool.page_size, device=columns.device)).flatten(1)
        seen = (at <= position) & (entry < len(segment))  # behind it, the last page may hold what is another's
        if scores.window is not None:
            seen &= at > position - scores.window
        if segment.alive is not None:
            alive = torch.from_numpy(segment.alive).to(seen.device)
            seen &= alive[entry.clamp_max(len(segment) - 1)]
        logits = logits.masked_fill(~seen[:, None], -torch.inf)
        lse = torch.logsumexp(logits, -1)
        weights = torch.exp(logits - lse.clamp_min(torch.finfo(lse.dtype).min)[..., None])
        return (weights @ values).to(query.dtype).flatten(0, 1), lse.flatten()

    def _bounds_of(self, layer: int, segment: Segment, full: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The least and the greatest keys `[kv_heads, full, dim]` of the full pages, in float32."""
        known = self._bounds.get((segment, layer))
        have = known[0].shape[1] if known else 0
        if have < full:
            size = segment.pool.page_size
            pages = segment.pool.index(segment.table[layer, :, have:full].reshape(-1))
            keys, _ = segment.pool.read(pages)
            keys = keys.view(self._sequence.heads, full - have, size, -1).float()
            fresh = keys.amin(2), keys.amax(2)
            known = (torch.cat([known[0], fresh[0]], 1), torch.cat([known[1], fresh[1]], 1)) if known else fresh
            self._bounds[segment, layer] = known
        assert known is not None
        return known
