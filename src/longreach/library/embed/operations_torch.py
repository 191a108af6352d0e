"""The operations of a small BERT in PyTorch, for batches."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class TorchOperations:
    """`weights` by their names in the checkpoint, on `device`; matrices are `[out, in]`."""

    weights: dict[str, Tensor]
    device: str

    @classmethod
    def load(cls, path: Path, device: str) -> TorchOperations:
        """Read a safetensors file; `device` "auto" is CUDA, then MPS, then the processor."""
        from safetensors.torch import load_file

        if device == "auto":
            mps = torch.backends.mps.is_available()
            device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
        floating = {name: weight for name, weight in load_file(path).items() if weight.is_floating_point()}
        return cls({name: weight.to(device, torch.float32) for name, weight in floating.items()}, device)

    def run(self) -> contextlib.AbstractContextManager[Any]:
        """No gradients."""
        return torch.inference_mode()

    def inputs(self, tokens: Any, mask: Any) -> tuple[Any, Any]:
        """Both as tensors on the device."""
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(mask).to(self.device)

    def look_up(self, tokens: Tensor) -> Tensor:
        """The sum of word, position and type embeddings, `[batch, length, dim]`."""
        words = F.embedding(tokens, self.weights["embeddings.word_embeddings.weight"])
        positions = self.weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        return words + positions + self.weights["embeddings.token_type_embeddings.weight"][0]

    def linear(self, hidden: Tensor, name: str) -> Tensor:
        """`hidden @ weight.T + bias`."""
        return F.linear(hidden, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, hidden: Tensor, name: str) -> Tensor:
        """Layer normalisation."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(hidden, weight.shape, weight, bias, 1e-12)

    def heads(self, hidden: Tensor, heads: int) -> Tensor:
        """`[batch, length, dim]` to `[batch, heads, length, head_dim]`."""
        batch, length, dim = hidden.shape
        return hidden.view(batch, length, heads, dim // heads).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Softmax attention, heads merged again."""
        keep = (mask > 0)[:, None, None, :]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=keep).transpose(1, 2).flatten(2)

    def gelu(self, hidden: Tensor) -> Tensor:
        """The exact (erf) GELU."""
        return F.gelu(hidden)

    def pool(self, hidden: Tensor, mask: Tensor) -> Any:
        """The mean over tokens, scaled to unit norm, as a NumPy array."""
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(mean, dim=-1).float().cpu().numpy()
