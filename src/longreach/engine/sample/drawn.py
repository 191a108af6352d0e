"""What came of a batch of draws, on its device and off it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from longreach.engine.requests import Logprob, TokenLogprobs
from longreach.engine.sample.rows import wide


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token a row, None where the row failed: its logits were not numbers, or nothing was left to choose from.
    `logprobs` has None also where they were not asked for."""

    tokens: Sequence[int | None]
    logprobs: Sequence[TokenLogprobs | None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Tokens [rows] that are still on their device, -1 where the row failed; `read` waits for them.

    `asked` says which rows want log-probabilities, and of how many tokens beside their own; `log_probabilities` and
    `ids` [asked, 1 + most] hold them, the row's own token first.
    """

    tokens: torch.Tensor
    asked: Mapping[int, int]
    log_probabilities: torch.Tensor
    ids: torch.Tensor

    def read(self) -> Sampled:
        """Everything in one transfer."""
        rows, entries = len(self.tokens), self.ids.numel()
        if not self.asked:
            return Sampled([_token(token) for token in self.tokens.tolist()], [None] * rows)
        # Ids are far below 2**53, and below 2**24 where a device has floats of 32 bits alone: they come through whole.
        parts = (self.tokens, self.ids.view(-1), self.log_probabilities.view(-1))
        together = torch.cat([part.to(wide(part.device)) for part in parts]).tolist()
        tokens = [_token(int(token)) for token in together[:rows]]
        ids, values = together[rows : rows + entries], together[rows + entries :]
        logprobs: list[TokenLogprobs | None] = [None] * rows
        each = self.ids.shape[1]
        for at, (row, most) in enumerate(self.asked.items()):
            if tokens[row] is not None:
                start, end = at * each, at * each + min(1 + most, each)
                pairs = zip(values[start:end], ids[start:end], strict=True)
                own, *likeliest = [Logprob(value, int(token)) for value, token in pairs]
                logprobs[row] = TokenLogprobs(own, tuple(likeliest))
        return Sampled(tokens, logprobs)


def _token(token: int) -> int | None:
    return token if token >= 0 else None
