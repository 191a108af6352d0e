"""Decode of what several sequences share: read once, for the queries of all. Importing this imports Triton.

To the kernel, the queries of all sequences are those of one token whose KV heads have many query heads (Juravsky et al.
2024, "Hydragen", arXiv 2402.05099).
"""

from __future__ import annotations

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part, merge
from longreach.attention.tables import Pages, References, Turns
from longreach.attention.triton_decode import decode

MOST_QUERIES = 64
"""Query rows of a KV head that a program holds at most."""
_ANYWHERE = 2**31 - 2
"""A position after all that was written, and before what was not."""


class SharedTables:
    """The pages that some of up to `rows` sequences share, on the device: `pages` (int32) and `alive` (int64) `[layers,
    kv_heads, width]`, `count [1]` of them (int32) in each stream, and which sequences are `members [rows]` (bool)."""

    def __init__(self, layers: int, heads: int, rows: int, width: int, device: torch.device) -> None:
        self.pages = torch.zeros((layers, heads, width), dtype=torch.int32, device=device)
        self.alive = torch.zeros((layers, heads, width), dtype=torch.int64, device=device)
        self.count = torch.zeros(1, dtype=torch.int32, device=device)
        self.members = torch.zeros(rows, dtype=torch.bool, device=device)
        self._slots = torch.zeros((1, heads, width), dtype=torch.int32, device=device)
        self._at = torch.full((1,), _ANYWHERE, dtype=torch.int32, device=device)
        nothing = torch.zeros((1, 1, 1), device=device)
        self._turns = Turns(nothing, nothing, torch.zeros((1, 1), dtype=torch.int32, device=device))

    def attend(self, layer: int, width: int, query: torch.Tensor, own: Part, pages: Pages, scores: Scores) -> Part:
        """`own`, which members have attended to beside, merged with the attention of `query [rows, heads, dim]` to what
        they share: at most `width` pages a stream, all before their tokens, in a layer without a window."""
        rows, heads, dim = query.shape
        kv_heads = self.pages.shape[1]
        references = References(
            self.pages[layer, :, :width][None],
            self._slots[:, :, :width],
            self.alive[layer, :, :width][None],
            self.count[:, None].expand(1, kv_heads),
        )
        folded = query.view(rows, kv_heads, -1, dim).transpose(0, 1).reshape(1, rows * heads, dim)
        output, lse = decode(
            folded, self._at, pages, references, self._turns, scale=scores.scale, softcap=scores.softcap
        )
        output = output.view(kv_heads, rows, -1, output.shape[2]).transpose(0, 1).reshape(rows, heads, -1)
        lse = lse.view(kv_heads, rows, -1).transpose(0, 1).reshape(rows, heads)
        lse = lse.masked_fill(~self.members[:rows, None], -torch.inf)
        merged, total = merge([(own[0].float(), own[1]), (output.float(), lse)])
        return merged.to(query.dtype), total
