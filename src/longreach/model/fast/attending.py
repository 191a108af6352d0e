"""Lending a transformers model another attention for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def attending(model: Any, attention: Callable[..., Any]) -> Iterator[None]:
    """Let the layers of `model` call `attention(module, query, key, value, mask, **options)` and make no masks.

    Not for two threads on one model at the same time.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = f"longreach-{id(model)}"
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    try:
        for config in configs.values():
            config._attn_implementation = name
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop(name, None)
