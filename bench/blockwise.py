"""A Llama in plain tensors that can compute any tokens again over kept keys and values: what reuse is measured with.

It is written for looking, not for speed: every entry of a prompt has a slot, and each pass says which slots it computes
and through how many layers. Checked against transformers by `bench/repair.py` before it measures anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

Narrow = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, slots, fresh keys and values, stored ones, each `[2, kv_heads, slots, dim]`) -> mask of slots that go on."""


@dataclass
class Memory:
    """Keys and values `[layers, kv_heads, slots, dim]`, the position of each slot and whether it may be seen."""

    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    alive: torch.Tensor

    def copy(self) -> Memory:
        return Memory(self.keys.clone(), self.values.clone(), self.positions, self.alive.clone())


@dataclass
class Tempered:
    """Attention to the slots `within` as APE has it (arXiv 2502.05431): logits over `temperature`, log-sum-exp times
    `scale`."""

    within: torch.Tensor
    temperature: float
    scale: float


@dataclass
class Pass:
    """What a pass gave: the last hidden states of the slots that went through every layer, in their order; through how
    many layers it went for each slot of the memory; for each layer the attention `[heads, watched slots, slots]`."""

    hidden: torch.Tensor
    layers: torch.Tensor
    weights: list[torch.Tensor] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """In token-layers."""
        return int(self.layers.sum())


class Net:
    """The weights of a Llama of transformers, and the passes over a `Memory`."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.kv_heads, self.eps = config.num_key_value_heads, config.rms_norm_eps
        self.dim = config.head_dim or config.hidden_size // config.num_attention_heads
        self.blocks = model.model.layers
        self.embedding, self.final, self.head = model.model.embed_tokens, model.model.norm, model.lm_head
        self.frequencies = model.model.rotary_emb.inv_freq.float()
        blocks = self.blocks
        self.qkv = [
            torch.cat([b.self_attn.q_proj.weight, b.self_attn.k_proj.weight, b.self_attn.v_proj.weight]) for b in blocks
        ]
        self.up = [torch.cat([b.mlp.gate_proj.weight, b.mlp.up_proj.weight]) for b in blocks]

    def memory(self, positions: torch.Tensor) -> Memory:
        """An empty memory with a slot for each of `positions`; nothing in it may be seen yet."""
        shape = (self.layers, self.kv_heads, len(positions), self.dim)
        return Memory(torch.zeros(shape), torch.zeros(shape), positions, torch.zeros(len(positions), dtype=torch.bool))

    def compute(
        self,
        memory: Memory,
        ids: torch.Tensor,
        slots: torch.Tensor,
        *,
        depths: torch.Tensor | None = None,
        narrow: Narrow | None = None,
        watch: torch.Tensor | None = None,
        tempered: Tempered | None = None,
    ) -> Pass:
        """Compute `ids` into `slots`, in place; they attend to every slot that may be seen and stands not after them.

        `depths [slots]`: how many layers each is computed through (default: all). `narrow` may take slots
        out after it saw their fresh keys and values. `watch`: a mask of the slots whose weights are wanted.
        """
        hidden = self.embedding.weight[ids]
        memory.alive[slots] = True
        depths = torch.full_like(slots, self.layers) if depths is None else depths
        watched = torch.zeros(len(slots), dtype=torch.bool) if watch is None else watch
        cosine, sine = self._turn(memory.positions[slots])
        seen = memory.alive & (memory.positions <= memory.positions[slots][:, None])
        through, weights = torch.zeros_like(memory.positions), []
        for layer in range(self.layers):
            on = depths > layer
            if not bool(on.all()):
                hidden, slots, depths, watched = hidden[on], slots[on], depths[on], watched[on]
                cosine, sine, seen = cosine[on], sine[on], seen[on]
            query, key, value = self._project(layer, hidden, cosine, sine)
            if narrow is not None:
                stored = torch.stack([memory.keys[layer][:, slots], memory.values[layer][:, slots]])
                go = narrow(layer, slots, torch.stack([key, value]), stored)
                if not bool(go.all()):
                    hidden, slots, depths, watched = hidden[go], slots[go], depths[go], watched[go]
                    cosine, sine, seen = cosine[go], sine[go], seen[go]
                    query, key, value = query[:, go], key[:, go], value[:, go]
            through[slots] += 1
            memory.keys[layer][:, slots] = key
            memory.values[layer][:, slots] = value
            if watch is not None:
                weights.append(self._weights(query[:, watched], memory.keys[layer], seen[watched]))
            attended = self._attend(query, memory.keys[layer], memory.values[layer], seen, tempered)
            hidden = self._after(layer, hidden, attended)
        return Pass(hidden, through, weights)

    def log_probs(self, hidden: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `[slots, vocab]` of the next tokens."""
        return F.linear(self._norm(hidden, self.final.weight), self.head.weight).log_softmax(-1)

    def turn_keys(self, keys: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        """Keys `[..., slots, dim]` moved by `by [slots]` positions."""
        cosine, sine = self._turn(by)
        return _rotate(keys, cosine, sine)

    def _project(
        self, layer: int, hidden: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normed = self._norm(hidden, self.blocks[layer].input_layernorm.weight)
        sizes = [self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim]
        parts = F.linear(normed, self.qkv[layer]).split(sizes, -1)
        query, key, value = (part.view(len(hidden), -1, self.dim).transpose(0, 1) for part in parts)
        return _rotate(query, cosine, sine), _rotate(key, cosine, sine), value

    def _after(self, layer: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        block = self.blocks[layer]
        hidden = hidden + F.linear(attended.transpose(0, 1).reshape(len(hidden), -1), block.self_attn.o_proj.weight)
        gate, up = F.linear(self._norm(hidden, block.post_attention_layernorm.weight), self.up[layer]).chunk(2, -1)
        return hidden + F.linear(F.silu(gate) * up, block.mlp.down_proj.weight)

    def _attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor, how: Tempered | None
    ) -> torch.Tensor:
        share = self.heads // self.kv_heads
        keys, values = keys.repeat_interleave(share, 0), values.repeat_interleave(share, 0)
        if how is None:
            bias = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
            return F.scaled_dot_product_attention(query[None], keys[None], values[None], bias)[0]
        logits = query @ keys.transpose(-1, -2) / self.dim**0.5
        inside = (logits / how.temperature).masked_fill(~(seen & how.within), -torch.inf)
        outside = logits.masked_fill(~(seen & ~how.within), -torch.inf)
        # (sum of exp) to the power of scale: the mass of the tempered part grows or shrinks as a whole
        lse_in, lse_out = inside.logsumexp(-1) * how.scale, outside.logsumexp(-1)
        part = torch.sigmoid(lse_in - lse_out)[..., None]
        return part * (inside.softmax(-1).nan_to_num() @ values) + (1 - part) * (outside.softmax(-1) @ values)

    def _weights(self, query: torch.Tensor, keys: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        keys = keys.repeat_interleave(self.heads // self.kv_heads, 0)
        return (query @ keys.transpose(-1, -2) / self.dim**0.5).masked_fill(~seen, -torch.inf).softmax(-1)

    def _norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self.eps)

    def _turn(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions.float()[:, None] * self.frequencies
        return angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


def _rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cosine + torch.cat([-x[..., half:], x[..., :half]], -1) * sine
