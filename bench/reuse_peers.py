"""What others keep of a prompt: its beginning. They run the embedded model with the same threads and tokens."""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from longreach.config import load_settings
from longreach.model.load import load

Peer: TypeAlias = Callable[[Sequence[int], Sequence[int]], float]
"""Seconds to the first token of a prompt, of which the first part was read before and the second was not."""


def peers(gguf: Path | None) -> dict[str, Peer]:
    """By name: transformers, and llama.cpp where llama-cpp-python is installed and `gguf` is the model's file."""
    found: dict[str, Peer] = {"transformers": _transformers()}
    if gguf is not None and importlib.util.find_spec("llama_cpp") is not None:
        found["llama.cpp"] = _llama_cpp(gguf)
    return found


def _transformers() -> Peer:
    """A cache of the beginning is copied for each prompt (`past_key_values`)."""
    from transformers import DynamicCache

    model: Any = load("embedded", cache=load_settings().cache, device="cpu", dtype="float32").model

    @torch.inference_mode()
    def seconds(known: Sequence[int], rest: Sequence[int]) -> float:
        cache = DynamicCache()
        model(torch.tensor([list(known)]), past_key_values=cache, logits_to_keep=1)
        began = time.perf_counter()
        own = copy.deepcopy(cache)
        logits = model(torch.tensor([list(rest)]), past_key_values=own, logits_to_keep=1).logits
        int(logits[0, -1].argmax())
        return time.perf_counter() - began

    return seconds


def _llama_cpp(gguf: Path) -> Peer:
    """The prompt's longest beginning that the context holds is kept, which is what its prompt cache does."""
    from llama_cpp import Llama

    threads = torch.get_num_threads()
    llama = Llama(str(gguf), n_ctx=8192, n_threads=threads, n_threads_batch=threads, verbose=False)

    def seconds(known: Sequence[int], rest: Sequence[int]) -> float:
        llama.reset()
        llama.eval(list(known))
        began = time.perf_counter()
        next(llama.generate([*known, *rest], temp=0.0))
        return time.perf_counter() - began

    return seconds
