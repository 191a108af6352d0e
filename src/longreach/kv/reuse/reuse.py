"""The contract of reuse: chunks were read by themselves and moved into a prompt; which of their tokens are computed
again, behind what really stands before them, and through how many layers.

A token of depth d has its keys and values of the layers below d computed again; from layer d on the stored ones stay.
Depth 0 is reuse, depth `layers` is what a prefill does. Tokens that are computed again attend, by position, to all that
stands before them, computed again or not. What no store has (what stands between chunks, the question) is always
computed. With every token at full depth, every method equals the full prefill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from longreach.errors import SpecError
from longreach.kv.temper import Temper
from longreach.registry import Family

Lead = Literal["nothing", "prefix", "filler"]
"""What a chunk was read behind: nothing; the prompt's prefix; the prefix and a few passages of filler."""


@dataclass(frozen=True)
class Question:
    """What the question's tokens attend to, over the stored chunks as they are.

    `weights [layers looked through, heads, question tokens, tokens]`: attention after the softmax over everything that
    a question token sees, of which only the stored tokens are given.
    """

    weights: torch.Tensor


@dataclass(frozen=True)
class StoredTokens:
    """The tokens of a prompt that came from a store, in the order of the prompt.

    `chunks`: for each chunk its tokens as half-open ranges `(start, end)`, which tile `[0, tokens)`; `layers`: of the
    model; `question` is there for methods that `look`. What was noted when the chunks were read for the store, if it
    was: `unsteady [tokens]`, how much a token's keys and values change with what the chunk is read behind
    (`longreach.kv.reuse.gaze.unsteadiness`); `outward [tokens]`, the share of a token's attention that went to the
    filler before its chunk, averaged over layers and heads. A log-sum-exp of the filler's part gives it.
    """

    chunks: Sequence[tuple[int, int]]
    layers: int
    question: Question | None = None
    unsteady: torch.Tensor | None = None
    outward: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.chunks[-1][1] if self.chunks else 0


class Reuse:
    """What to compute again. `lead`: what the method wants its chunks to have been read behind; `looks`: whether it
    wants the question's attention, for which the question is computed once more; `notes`: whether it wants `outward`,
    which must be noted when chunks are read; `parallel`: whether all chunks keep
    the place at which they were read, right behind the prefix, rather than following each other."""

    lead: Lead = "prefix"
    looks: ClassVar[bool] = False
    notes: ClassVar[bool] = False
    parallel: ClassVar[bool] = False

    @property
    def temper(self) -> Temper:
        """How what comes after chunks that are `parallel` attends to them."""
        return Temper()

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        """`[tokens]`, integers: through how many layers each token is computed again."""
        raise NotImplementedError

    def narrow(self, layer: int, tokens: int, fresh: torch.Tensor, stored: torch.Tensor) -> torch.Tensor | None:
        """Which of the tokens that reached `layer` go on, as a mask; None for all. They see their `fresh` keys and
        values beside the `stored` ones, `[2, kv_heads, some, dim]`; the prompt has `tokens` stored tokens."""
        return None


def deepest(scores: torch.Tensor, share: float, layers: int) -> torch.Tensor:
    """Depths: `layers` for the `share` of tokens with the greatest `scores [tokens]`, 0 for the others."""
    depths = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    depths[scores.topk(amount(share, len(scores))).indices] = layers
    return depths


def amount(share: float, of: int) -> int:
    """A share of tokens as a number, to the nearest."""
    return min(of, round(share * of))


def check_share(share: float) -> None:
    """Raises SpecError unless `share` is one."""
    if not 0 <= share <= 1:
        raise SpecError(f"share={share} is no share: give 0.0 for none of the tokens to 1.0 for all")


reuses: Family[Reuse] = Family("reuses", "longreach.kv.reuse")
