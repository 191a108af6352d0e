"""The operations of a small BERT with its matrices in 8 bits, for one question at a time on a processor.

A question of a dozen tokens waits for the weights, not for the arithmetic: a quarter of the bytes take a quarter of the
time, and one thread is enough. Weights are quantised per output row, activations per call; a vector's cosine with its
float32 self is about 0.99.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longreach.library.embed.operations_torch import TorchOperations


@dataclass
class Int8Operations(TorchOperations):
    """`packed` holds the matrices; the rest is as in float32."""

    packed: dict[str, Any]

    @classmethod
    def of(cls, operations: TorchOperations) -> Int8Operations | None:
        """The same network in 8 bits; None where this PyTorch, or its device, cannot."""
        if operations.device != "cpu":
            return None
        names = [name.removesuffix(".weight") for name in operations.weights if ".layer." in name and ".weight" in name]
        matrices = {name for name in names if operations.weights[f"{name}.weight"].ndim == 2}
        try:
            with warnings.catch_warnings(action="ignore"):
                packed = {
                    name: _pack(operations.weights[f"{name}.weight"], operations.weights[f"{name}.bias"])
                    for name in matrices
                }
        except (RuntimeError, AttributeError, NotImplementedError):
            return None
        return cls(operations.weights, operations.device, packed)

    def linear(self, hidden: Tensor, name: str) -> Tensor:
        """`hidden @ weight.T + bias`."""
        result: Tensor = torch.ops.quantized.linear_dynamic(hidden, self.packed[name])
        return result


def _pack(weight: Tensor, bias: Tensor) -> Any:
    scales = weight.abs().amax(dim=1).clamp_min(1e-8) / 127
    zeros = torch.zeros(len(weight), dtype=torch.long)
    quantised = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(quantised, bias)
