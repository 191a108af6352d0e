"""From a GGUF file of the Llama architecture to a folder in transformers' format.

GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) stores quantised weights under other names, and rotary
query and key rows interleaved, `(x0, x1), (x2, x3), …`, where transformers has halves, `(x0, x_d/2), …`.
The tokenizer is built from its tokens and merges, and from the name of its pre-tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreach.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {
    "gpt-2": (GPT2_WORDS,),
    "smollm": (r"\p{N}", GPT2_WORDS),
    "llama-bpe": (LLAMA3_WORDS,),
    "qwen2": (LLAMA3_WORDS.replace("{1,3}", ""),),
}
"""The patterns by which GGUF's `tokenizer.ggml.pre` cuts text before pairs are merged, applied one after another."""

CONTROL, USER_DEFINED = 3, 4
"""Kinds of tokens in `tokenizer.ggml.token_type`."""

_WEIGHTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class GGUF:
    """A GGUF file opened for reading. Raises ModelError where it is not one or is cut short."""

    def __init__(self, file: Path) -> None:
        from gguf import GGUFReader

        self.file = file
        self._read: dict[str, Any] = {}
        try:
            self._reader = GGUFReader(file)
        except (ValueError, OSError, IndexError, KeyError) as error:
            raise ModelError(f"{file} is not a whole GGUF file: {error}") from None

    def get(self, key: str, default: Any = None) -> Any:
        """The metadata at `key`, as Python values."""
        if key not in self._read:
            field = self._reader.get_field(key)
            self._read[key] = None if field is None else field.contents()
        return default if self._read[key] is None else self._read[key]

    def need(self, key: str) -> Any:
        """The metadata at `key`; ModelError where there is none."""
        found = self.get(key)
        if found is None:
            raise ModelError(f"{self.file} does not say {key}")
        return found

    @property
    def architecture(self) -> str:
        return str(self.need("general.architecture"))

    @property
    def tensor_names(self) -> set[str]:
        return {tensor.name for tensor in self._reader.tensors}

    @property
    def parameters(self) -> int:
        """How many numbers its tensors hold."""
        return sum(int(tensor.n_elements) for tensor in self._reader.tensors)

    def weights(self) -> dict[str, np.ndarray]:
        """Every tensor in float32 under transformers' name, rotary rows in transformers' order. Llama only."""
        from gguf.quants import dequantize

        heads = int(self.need("llama.attention.head_count"))
        kv_heads = int(self.get("llama.attention.head_count_kv", heads))
        found = {}
        for tensor in self._reader.tensors:
            values = dequantize(tensor.data, tensor.tensor_type)
            if ".attn_q." in tensor.name:
                values = to_halves(values, heads)
            elif ".attn_k." in tensor.name:
                values = to_halves(values, kv_heads)
            found[_name(tensor.name)] = values
        return found


def to_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder `rows` [heads * head_dim, ...] from rotary pairs side by side to rotary pairs half a head apart."""
    paired = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)


def _name(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk" and parts[2] in _WEIGHTS:
        return f"model.layers.{parts[1]}.{_WEIGHTS[parts[2]]}.{parts[3]}"
    if parts[0] in _OUTER:
        return f"{_OUTER[parts[0]]}.{parts[1]}"
    raise ModelError(f"the GGUF tensor {name!r} is not one of the Llama architecture")


def convertible(gguf: GGUF) -> bool:
    """Whether `convert` can do it: Llama without scaled rotary frequencies, and a tokenizer whose rules we know."""
    return gguf.architecture == "llama" and "rope_freqs.weight" not in gguf.tensor_names and knows_tokenizer(gguf)


def knows_tokenizer(gguf: GGUF) -> bool:
    """Whether `build_tokenizer` builds this file's tokenizer exactly."""
    return gguf.get("tokenizer.ggml.model") == "gpt2" and gguf.get("tokenizer.ggml.pre") in PRE_TOKENIZERS


def build_tokenizer(gguf: GGUF) -> Tokenizer:
    """Byte-level BPE from the file's tokens and merges; control and user-defined tokens are matched whole."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    tokens: list[str] = gguf.need("tokenizer.ggml.tokens")
    kinds: list[int] = gguf.get("tokenizer.ggml.token_type", [1] * len(tokens))
    merges = [tuple(merge.split(" ", 1)) for merge in gguf.need("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=merges))
    patterns = PRE_TOKENIZERS[gguf.need("tokenizer.ggml.pre")]
    cuts = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    named = list(zip(tokens, kinds, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t, kind in named if kind == CONTROL]
    )
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, kind in named if kind == USER_DEFINED])
    bos = gguf.get("tokenizer.ggml.bos_token_id")
    if gguf.get("tokenizer.ggml.add_bos_token", False) and bos is not None:
        first = tokens[bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[first, "$A"], pair=[first, "$A", "$B"], special_tokens=[(first, bos)]
        )
    return tokenizer


def tokenizer_config(gguf: GGUF) -> dict[str, Any]:
    """What transformers wants to know of the tokenizer beside `tokenizer.json`."""
    tokens = gguf.need("tokenizer.ggml.tokens")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": gguf.get(f"{gguf.architecture}.context_length"),
        "chat_template": gguf.get("tokenizer.chat_template"),
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        at = gguf.get(f"tokenizer.ggml.{theirs}_token_id")
        if at is not None:
            config[f"{ours}_token"] = tokens[at]
    return {key: value for key, value in config.items() if value is not None}


def end_tokens(gguf: GGUF) -> list[int]:
    """The ids that end an answer: the file's own, then whatever other control token is known to mean the same."""
    tokens: list[str] = gguf.need("tokenizer.ggml.tokens")
    kinds = gguf.get("tokenizer.ggml.token_type", [])
    ends = [gguf.get("tokenizer.ggml.eos_token_id"), gguf.get("tokenizer.ggml.eot_token_id")]
    for at, kind in enumerate(kinds):
        if kind == CONTROL and tokens[at] in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>"):
            ends.append(at)
    return list(dict.fromkeys(at for at in ends if at is not None))


def convert(gguf: GGUF, folder: Path) -> None:
    """Write `folder` in transformers' format: weights in bfloat16, configuration, tokenizer with its chat template."""
    import torch
    from safetensors.torch import save_file

    weights = {name: torch.tensor(values, dtype=torch.bfloat16) for name, values in gguf.weights().items()}
    file = folder / "model.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(0o644)  # it is written readable by its owner alone; the cache may be shared
    build_tokenizer(gguf).save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", tokenizer_config(gguf))
    _write(folder / "config.json", _config(gguf, tied="lm_head.weight" not in weights))
    ends = {"eos_token_id": end_tokens(gguf), "bos_token_id": gguf.get("tokenizer.ggml.bos_token_id")}
    _write(folder / "generation_config.json", {**ends, "pad_token_id": gguf.get("tokenizer.ggml.padding_token_id")})


def _config(gguf: GGUF, *, tied: bool) -> dict[str, Any]:
    heads = int(gguf.need("llama.attention.head_count"))
    hidden = int(gguf.need("llama.embedding_length"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "head_dim": int(gguf.get("llama.rope.dimension_count", hidden // heads)),
        "intermediate_size": int(gguf.need("llama.feed_forward_length")),
        "max_position_embeddings": int(gguf.need("llama.context_length")),
        "num_attention_heads": heads,
        "num_hidden_layers": int(gguf.need("llama.block_count")),
        "num_key_value_heads": int(gguf.get("llama.attention.head_count_kv", heads)),
        # The file holds single precision: 1e-5 comes out as 9.99999974e-6.
        "rms_norm_eps": float(f"{gguf.need('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(gguf.get("llama.rope.freq_base", 10000.0))},
        "tie_word_embeddings": tied,
        "vocab_size": len(gguf.need("tokenizer.ggml.tokens")),
        "bos_token_id": gguf.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": gguf.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": gguf.get("tokenizer.ggml.padding_token_id"),
    }


def _write(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
