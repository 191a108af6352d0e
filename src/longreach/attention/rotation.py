"""Rotary positions as turns, so that a key is used at another place than the one where it was computed.

The score of a query and a key depends on the difference of their turns alone (Su et al. 2021, arXiv 2104.09864): a key
moves by `shift` places when the query is turned back by as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rotation:
    """How one layer turns keys: `frequencies [pairs]` in radians a place (float64), on the first `2 * pairs`
    channels. Channel `i` is paired with `i + pairs`, or with its neighbour where `interleaved`. No frequencies: no
    turn at all."""

    frequencies: torch.Tensor
    interleaved: bool = False

    @classmethod
    def none(cls) -> Rotation:
        """A layer without positions: its keys can be used anywhere as they are."""
        return cls(torch.empty(0, dtype=torch.float64))

    def cos_sin(self, shift: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`[pairs]` each, in float64: exact also where positions are large."""
        angle = self.frequencies * shift
        return angle.cos(), angle.sin()

    def turn(self, x: torch.Tensor, shift: int) -> torch.Tensor:
        """`x [..., head_dim]` turned by `shift` places; computed in float32, returned in its own dtype."""
        pairs = len(self.frequencies)
        if shift == 0 or pairs == 0:
            return x
        cos, sin = (part.to(x.device, torch.float32) for part in self.cos_sin(shift))
        return self.turn_by(x, cos, sin)

    def turn_by(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """`x [..., head_dim]` turned by angles of its own: `cos`, `sin [..., pairs]` in float32, on x's device."""
        pairs = len(self.frequencies)
        wide = x.float()
        if self.interleaved:
            first, second = wide[..., 0 : 2 * pairs : 2], wide[..., 1 : 2 * pairs : 2]
        else:
            first, second = wide[..., :pairs], wide[..., pairs : 2 * pairs]
        turned = (first * cos - second * sin, second * cos + first * sin)
        both = torch.stack(turned, -1).flatten(-2) if self.interleaved else torch.cat(turned, -1)
        return torch.cat([both, wide[..., 2 * pairs :]], -1).to(x.dtype)

    def turn_into(self, out: torch.Tensor, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
        """As `turn_by`, for float32 alone and without gradients, into `out`, which is not `x`: in fewer operations."""
        pairs = len(self.frequencies)
        halves = (
            (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2))
            if self.interleaved
            else (slice(pairs), slice(pairs, 2 * pairs))
        )
        first, second = (x[..., half] for half in halves)
        torch.mul(first, cos, out=out[..., halves[0]]).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=out[..., halves[1]]).addcmul_(first, sin)
        out[..., 2 * pairs :] = x[..., 2 * pairs :]
