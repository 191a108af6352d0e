"""Values of single rows, brought to where the logits are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def send(values: Sequence[Any] | np.ndarray[Any, Any], dtype: Any, device: torch.device) -> torch.Tensor:
    """`values` [n] on `device`; the copy is queued, not waited for."""
    tensor = torch.from_numpy(np.asarray(values, dtype=dtype))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def column(values: Sequence[float], logits: torch.Tensor) -> torch.Tensor:
    """One value a row, [rows, 1], in the precision of `logits`."""
    return send(values, np.float64 if logits.dtype == torch.float64 else np.float32, logits.device)[:, None]


def flat(ids: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
    """The places in `logits.view(-1)` of the tokens `ids` of each row; those beyond the vocabulary are left out."""
    vocab = logits.shape[-1]
    parts = [np.fromiter(row, dtype=np.int64, count=len(row)) for row in ids]
    places = [part[part < vocab] + row * vocab for row, part in enumerate(parts)]
    return send(np.concatenate(places), np.int64, logits.device)


def take(tensor: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """`rows` of `tensor`, rising; `tensor` itself where that is all of them."""
    return tensor if len(rows) == len(tensor) else tensor.index_select(0, send(rows, np.int64, tensor.device))


def put(tensor: torch.Tensor, rows: Sequence[int], values: torch.Tensor) -> torch.Tensor:
    """`tensor` with `values` for `rows`, rising; the tensor that was given stays as it is."""
    return values if len(rows) == len(tensor) else tensor.index_copy(0, send(rows, np.int64, tensor.device), values)


def wide(device: torch.device) -> torch.dtype:
    """The precision in which masses are summed: double, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def ordered(logits: torch.Tensor) -> torch.Tensor:
    """The values of each row, largest first. On a CPU by NumPy, whose vectorised sort takes a twentieth of PyTorch's
    time on 49 thousand values."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        return torch.from_numpy(np.sort(logits.detach().numpy(), axis=-1)).flip(-1)
    return logits.sort(dim=-1, descending=True).values
