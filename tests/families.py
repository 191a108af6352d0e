"""Tiny models of many families, with random weights: what the bridge must be able to run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def _llama() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SMALL)


def _qwen2() -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**SMALL)


def _qwen3() -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**SMALL, head_dim=16)


def _mistral() -> Any:
    from transformers import MistralConfig

    return MistralConfig(**SMALL, sliding_window=12)


def _gemma2() -> Any:
    from transformers import Gemma2Config

    return Gemma2Config(**SMALL, head_dim=8, sliding_window=12, attn_logit_softcapping=4.0, query_pre_attn_scalar=8)


def _gemma3() -> Any:
    from transformers import Gemma3TextConfig

    types = ["sliding_attention", "sliding_attention", "full_attention"]
    return Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=12, layer_types=types, query_pre_attn_scalar=8)


def _phi3() -> Any:
    from transformers import Phi3Config

    return Phi3Config(**SMALL, pad_token_id=0)


def _olmo2() -> Any:
    from transformers import Olmo2Config

    return Olmo2Config(**SMALL)


def _smollm3() -> Any:
    from transformers import SmolLM3Config

    return SmolLM3Config(**SMALL, no_rope_layers=[1, 0, 1], pad_token_id=0)


def _gpt_neox() -> Any:
    from transformers import GPTNeoXConfig

    small = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
    return GPTNeoXConfig(**small, rotary_pct=0.25)


def _gpt2() -> Any:
    from transformers import GPT2Config

    return GPT2Config(vocab_size=97, n_embd=32, n_layer=3, n_head=4, n_positions=512)


def _mixtral() -> Any:
    from transformers import MixtralConfig

    return MixtralConfig(**SMALL, **EXPERTS)


def _qwen3_moe() -> Any:
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(**SMALL, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)


CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "mistral": _mistral,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "olmo2": _olmo2,
    "smollm3": _smollm3,
    "gpt_neox": _gpt_neox,
    "gpt2": _gpt2,
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
}
NOT_RELOCATABLE = {"gpt2"}


def fresh(family: str, **changes: Any) -> Any:
    """A model of `family` in float32, the same at every call; `changes` are set in its configuration."""
    import torch
    from transformers import AutoModelForCausalLM

    config = CONFIGS[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    with torch.inference_mode(False):  # whoever asks first
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)  # random initial weights are so small that every token looks alike
    return model


@cache
def exact(family: str) -> Any:
    """The same with transformers' own eager attention, to compare with."""
    return fresh(family)
