"""What a model is and asks of a KV cache, from its files alone: nothing is loaded or fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.errors import InputError, ModelError
from longreach.model import names

CONTEXT = 2048
"""Tokens that a model can read which does not say it."""


@dataclass(slots=True)
class KVShape:
    """Layers, KV heads, channels of keys and of values; `weight_bytes` is what the weights take on disk, `parameters`
    how many they are, 0 where they are not at hand; `context_length` is in tokens."""

    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int
    weight_bytes: int
    parameters: int
    context_length: int

    @property
    def numbers(self) -> int:
        """Numbers in the keys and values of one token."""
        return self.layers * self.kv_heads * (self.head_dim + self.value_dim)


def kv_shape(name: str, cache: Path) -> KVShape:
    """The shape of the model `name`. Raises ModelError where its configuration is not at hand or does not tell,
    InputError for a server."""
    which = names.kind(name)
    if which == "url":
        raise InputError(f"{name} is a server: what it keeps is its own affair")
    if which == "gguf":
        return _of_gguf(Path(name).expanduser())
    folder = names.folder(name, cache)
    if folder is None:
        fetch = "longreach models fetch" if which == "embedded" else f'longreach ask --model {name} "..."'
        raise ModelError(f"the configuration of {name} is not at hand: `{fetch}` fetches the model")
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        text = config.get("text_config") or config
        layers, heads, dim, value_dim = shape_of(text)
        context = int(text.get("max_position_embeddings") or CONTEXT)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{file} does not tell how many layers and KV heads the model has") from None
    weights = sorted(folder.glob("*.safetensors"))
    size = sum(part.stat().st_size for part in weights)
    return KVShape(layers, heads, dim, value_dim, size, sum(map(_numbers_in, weights)), context)


def shape_of(config: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Layers, KV heads, channels of keys and of values, from the fields of a `config.json`. Raises KeyError where they
    are missing."""

    def first(*keys: str) -> int:
        found = next((config[key] for key in keys if config.get(key)), None)
        if found is None:
            raise KeyError(keys[0])
        return int(found)

    layers, heads = first("num_hidden_layers", "n_layer"), first("num_attention_heads", "n_head")
    if config.get("kv_lora_rank"):  # latent attention, unfolded into all heads before it attends
        return layers, heads, first("qk_nope_head_dim") + first("qk_rope_head_dim"), first("v_head_dim")
    dim = int(config.get("head_dim") or first("hidden_size", "n_embd") // heads)
    return layers, int(config.get("num_key_value_heads") or heads), dim, dim


def _numbers_in(weights: Path) -> int:
    """How many numbers a file of weights holds; its head alone is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "numpy") as stored:
            return sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"the weights {weights} are damaged ({error}): fetch them again") from None


def _of_gguf(file: Path) -> KVShape:
    from longreach.model.gguf import GGUF

    gguf = GGUF(file)
    of = f"{gguf.architecture}."
    heads = int(gguf.need(of + "attention.head_count"))
    dim = int(gguf.get(of + "attention.key_length") or int(gguf.need(of + "embedding_length")) // heads)
    value_dim = int(gguf.get(of + "attention.value_length") or dim)
    kv_heads = gguf.get(of + "attention.head_count_kv") or heads
    if not isinstance(kv_heads, int):
        raise ModelError(f"the layers of {file} have different numbers of KV heads, which is not supported here")
    context = int(gguf.get(of + "context_length") or CONTEXT)
    layers, size = int(gguf.need(of + "block_count")), file.stat().st_size
    return KVShape(layers, kv_heads, dim, value_dim, size, gguf.parameters, context)
