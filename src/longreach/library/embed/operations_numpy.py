"""The operations of a small BERT in NumPy, for one short text at a time."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Array = NDArray[np.float32]


@dataclass
class NumpyOperations:
    """`weights` by their names in the checkpoint; matrices are `[out, in]`."""

    weights: dict[str, Array]
    threads: ThreadpoolController

    @classmethod
    def load(cls, path: Path) -> NumpyOperations:
        """Read a safetensors file."""
        from safetensors.numpy import load_file

        floating = {name: weight for name, weight in load_file(path).items() if weight.dtype == np.float32}
        return cls(floating, ThreadpoolController().select(internal_api="openblas"))

    def run(self) -> contextlib.AbstractContextManager[Any]:
        """One thread: matrices this small gain little from more, and lose much where a processor is busy."""
        limit: contextlib.AbstractContextManager[Any] = self.threads.limit(limits=1)
        return limit

    def inputs(self, tokens: Any, mask: Any) -> tuple[Any, Any]:
        """`tokens` and `mask` as they are."""
        return tokens, mask

    def look_up(self, tokens: NDArray[np.int64]) -> Array:
        """The sum of word, position and type embeddings, `[batch, length, dim]`."""
        weights = self.weights
        hidden: Array = (
            weights["embeddings.word_embeddings.weight"][tokens]
            + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        return hidden

    def linear(self, hidden: Array, name: str) -> Array:
        """`hidden @ weight.T + bias`."""
        flat = self.weights[f"{name}.weight"] @ hidden.reshape(-1, hidden.shape[-1]).T  # quicker than its transpose
        return (flat.T + self.weights[f"{name}.bias"]).reshape(*hidden.shape[:-1], -1)

    def norm(self, hidden: Array, name: str) -> Array:
        """Layer normalisation."""
        centred = hidden - hidden.mean(-1, keepdims=True)
        scale = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-12))
        normed: Array = centred * scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return normed

    def heads(self, hidden: Array, heads: int) -> Array:
        """`[batch, length, dim]` to `[batch, heads, length, head_dim]`."""
        batch, length, _ = hidden.shape
        return hidden.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)

    def attend(self, query: Array, key: Array, value: Array, mask: Any) -> Array:
        """Softmax attention, heads merged again."""
        scores = (query / np.float32(math.sqrt(query.shape[-1]))) @ key.transpose(0, 1, 3, 2)
        scores = np.where(mask[:, None, None, :] > 0, scores, np.float32(-1e9))
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ value).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(mixed).reshape(mixed.shape[0], mixed.shape[1], -1)

    def gelu(self, hidden: Array) -> Array:
        """The exact (erf) GELU."""
        gated: Array = hidden * np.float32(0.5) * (1 + erf(hidden * np.float32(math.sqrt(0.5))))
        return gated

    def pool(self, hidden: Array, mask: Any) -> Array:
        """The mean over tokens, scaled to unit norm."""
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        unit: Array = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
        return unit


def erf(x: Array) -> Array:
    """The error function to 2e-7. Abramowitz & Stegun 1964, formula 7.1.26."""
    a = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * a)
    series: Any = np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(coefficient)
    result: Array = np.copysign(1 - series * t * np.exp(-a * a), x)
    return result
