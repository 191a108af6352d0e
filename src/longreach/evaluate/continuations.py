"""What is compared where a run is held against the exact one: how soon an answer begins, and the probabilities along
it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from longreach.engine import ROOT, Completion, Engine, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray


def begun(engine: Engine, prompt: Prompt, tokens: int, stop: Sequence[str] = ()) -> tuple[float, Completion]:
    """Seconds until the first token of the greedy answer to `prompt` is there, and the answer, of at most `tokens`."""
    started = time.perf_counter()
    stream = engine.stream(prompt, max_tokens=tokens, stop=stop)
    next(stream)
    seconds = time.perf_counter() - started
    return seconds, stream.finish()


def along(engine: Engine, prompt: Prompt, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Log-probabilities `[tokens, vocab]` before each of `tokens`, after `prompt` and those before it."""
    import torch

    found = engine.explore(prompt)
    nodes = [(ROOT if at == 0 else at - 1, token) for at, token in enumerate(tokens[:-1])]
    _, rest = found.expand(nodes)
    told: NDArray[np.float32] = torch.cat([found.root[None], rest]).float().cpu().numpy()
    return told
