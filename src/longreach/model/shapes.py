"""What a model asks of a KV cache, from its configuration alone: nothing is loaded or fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.errors import InputError, ModelError
from longreach.model import embedded, names


@dataclass(slots=True)
class KVShape:
    """Layers, KV heads, channels of keys and of values; `weight_bytes` is what the weights take on disk."""

    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int
    weight_bytes: int

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
    file = _config_file(name, which, cache)
    if file is None or not file.is_file():
        fetch = "longreach models fetch" if which == "embedded" else f'longreach ask --model {name} "..."'
        raise ModelError(f"the configuration of {name} is not at hand: `{fetch}` fetches the model")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        layers, heads, dim, value_dim = shape_of(config.get("text_config") or config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{file} does not tell how many layers and KV heads the model has") from None
    size = sum(weights.stat().st_size for weights in file.parent.glob("*.safetensors"))
    return KVShape(layers, heads, dim, value_dim, size)


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


def _config_file(name: str, which: names.Kind, cache: Path) -> Path | None:
    if which == "embedded":
        return embedded.folder(cache) / "config.json"
    if which == "folder":
        return Path(name).expanduser() / "config.json"
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    return Path(cached) if isinstance(cached, str) else None


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
    return KVShape(int(gguf.need(of + "block_count")), kv_heads, dim, value_dim, file.stat().st_size)
