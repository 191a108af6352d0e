"""Engines of tiny models with random weights."""

from __future__ import annotations

from typing import Any

import torch

from families import fresh
from longreach.engine.paged import PagedEngine
from longreach.model.load import LoadedModel

SIZE = 16


def engine_of(family: str, reuse: bool) -> PagedEngine:
    model = fresh(family)
    loaded = LoadedModel("tiny", model, Letters(), frozenset(), "", 512, torch.device("cpu"), torch.float32, 0)
    return PagedEngine(loaded, kv_bytes=4 << 20, page_size=SIZE, reuse=reuse)


class Letters:
    """Stands in for a tokenizer."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 97 for letter in text]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "x" * len(ids)
