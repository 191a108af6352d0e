"""What a captured step computes, computed step by step: with the kernels interpreted and nothing captured."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from families import exact, fresh
from longreach.engine import decode_graph, runner
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Sampling
from longreach.model.load import LoadedModel


class Uncaptured:
    """Stands in for a graph: computes anew what it would replay."""

    def __init__(self, *given: Any) -> None:
        self._step = decode_graph._GraphStep(*given)
        self.graph = self
        self.logits, self.chosen = (
            self._step.run()
        )  # as the capture does, which may write what the step itself will write

    def replay(self) -> None:
        self.logits, self.chosen = self._step.run()


@pytest.mark.thorough
def test_steps_from_buffers_write_what_transformers_writes(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences that grow over pages, join and leave, and whose tables outgrow their room."""
    from longreach.attention.triton_step import TritonStep

    monkeypatch.setattr(decode_graph, "_Graph", Uncaptured)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(runner, "_forms", lambda bridge, pool: (TritonStep, decode_graph.DecodeGraphs(bridge, pool)))
    model = fresh("llama")
    loaded = LoadedModel("tiny", model, Letters(), frozenset(), "", 512, torch.device("cpu"), torch.float32, 0)
    engine = PagedEngine(loaded, kv_bytes=4 << 20, page_size=16)
    prompts = [[5 + at, 7, 11, *range(3, 3 + 9 * at)] for at in range(4)]
    streams = [engine.start(prompt, Sampling(max_tokens=8 + 6 * at)) for at, prompt in enumerate(prompts)]
    for at, (prompt, stream) in enumerate(zip(prompts, streams, strict=True)):
        given = torch.tensor([prompt])
        options = {"max_new_tokens": 8 + 6 * at, "do_sample": False, "attention_mask": torch.ones_like(given)}
        assert list(stream.finish().token_ids) == exact("llama").generate(given, **options)[0, len(prompt) :].tolist()


class Letters:
    """Stands in for a tokenizer."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 97 for letter in text]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "x" * len(ids)
