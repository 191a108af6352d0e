"""A prompt with passages, read as a whole and answered: what is exact, and the keys and values to be encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from longreach.engine.requests import Part
from longreach.model.load import LoadedModel
from longreach.model.sensitivity import Reading, plain_attention

ANSWER = 24
"""Tokens of an answer at most."""


@dataclass(frozen=True, eq=False)
class Case:
    """`spans` of the tokens of `prompt` are passages, right behind each other. `keys`, `values [layers, kv_heads,
    tokens, dim]` are those up to the end of the last; `answer` is the greedy one, chosen by the log-probabilities
    `exact [answer, vocab]`."""

    prompt: list[int]
    spans: list[tuple[int, int]]
    answer: list[int]
    keys: torch.Tensor
    values: torch.Tensor
    exact: torch.Tensor

    @property
    def kv(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """That of the passages, and where they begin."""
        first = self.spans[0][0]
        return self.keys[:, :, first:], self.values[:, :, first:], first

    def passage(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """That of one passage, and where it begins."""
        start, end = self.spans[number]
        return self.keys[:, :, start:end], self.values[:, :, start:end], start

    @property
    def reading(self) -> Reading:
        """As gradients are taken of it."""
        return Reading(self.prompt, self.spans[0][0], self.spans[-1][1], self.answer)

    @property
    def asked(self) -> list[int]:
        """What stands behind the passages."""
        return self.prompt[self.spans[-1][1] :]


def spans_of(parts: Sequence[Part]) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a prompt, and where among them its passages are."""
    tokens: list[int] = []
    spans = []
    for part in parts:
        if part.passage:
            spans.append((len(tokens), len(tokens) + len(part.token_ids)))
        tokens += part.token_ids
    return tokens, spans


@torch.inference_mode()
def read(loaded: LoadedModel, prompt: Sequence[int], spans: Sequence[tuple[int, int]]) -> Case:
    """Read `prompt` as a whole and answer it."""
    with plain_attention(loaded.model):
        out = loaded.model(torch.tensor([list(prompt)], device=loaded.device), use_cache=True, logits_to_keep=1)
        cache, end = out.past_key_values, spans[-1][1]
        keys, values = (
            torch.stack([getattr(layer, kind)[0][:, :end] for layer in cache.layers]) for kind in ("keys", "values")
        )
        answer, exact = _go_on(loaded, out.logits[:, -1], cache)
    return Case(list(prompt), list(spans), answer[0], keys, values, torch.stack(exact, 1)[0, : len(answer[0])])


def _go_on(loaded: LoadedModel, logits: torch.Tensor, cache: Any) -> tuple[list[list[int]], list[torch.Tensor]]:
    """The greedy answers after `logits [rows, vocab]`, and the log-probabilities `[rows, vocab]` of each token."""
    rows = [logits.float().log_softmax(-1)]
    answers = [[int(token)] for token in rows[0].argmax(-1)]
    ended = [answer[-1] in loaded.end_tokens for answer in answers]
    while len(rows) < ANSWER and not all(ended):
        last = torch.tensor([answer[-1:] for answer in answers], device=loaded.device)
        rows.append(loaded.model(last, past_key_values=cache).logits[:, -1].float().log_softmax(-1))
        for at, (answer, token) in enumerate(zip(answers, rows[-1].argmax(-1), strict=True)):
            answer.append(int(token))
            ended[at] = ended[at] or int(token) in loaded.end_tokens
    return [_until(answer, loaded.end_tokens) for answer in answers], rows


def _until(answer: list[int], ends: frozenset[int]) -> list[int]:
    """An answer to its end."""
    return next((answer[: at + 1] for at, token in enumerate(answer) if token in ends), answer)


@torch.inference_mode()
def behind(
    loaded: LoadedModel, case: Case, kept: Sequence[tuple[torch.Tensor, torch.Tensor]], *, answered: int
) -> tuple[torch.Tensor, list[list[int]]]:
    """The case read on behind other keys and values in place of its own, `kept`, all at once: the log-probabilities
    `[kept, answer, vocab]` along the exact answer, and the greedy answers of the first `answered` of them."""
    from transformers import DynamicCache

    rest = case.asked
    with plain_attention(loaded.model):
        cache: Any = DynamicCache()
        for layer in range(len(kept[0][0])):
            cache.update(*(torch.stack([one[side][layer] for one in kept]).to(loaded.device) for side in (0, 1)), layer)
        tokens = torch.tensor([rest + case.answer[:-1]] * len(kept), device=loaded.device)
        keep = len(case.answer)
        logits = loaded.model(tokens, past_key_values=cache, logits_to_keep=keep).logits.float().log_softmax(-1)
        answers: list[list[int]] = []
        if answered:
            asked: Any = DynamicCache()
            for at, layer in enumerate(cache.layers):
                asked.update(
                    *(x[:answered, :, : case.spans[-1][1] + len(rest)] for x in (layer.keys, layer.values)), at
                )
            answers, _ = _go_on(loaded, logits[:answered, 0], asked)
    return logits, answers
