"""The embedded encoder, all-MiniLM-L6-v2: one small BERT, written once over a set of operations.

Documents are encoded with PyTorch. A question is encoded with its 8-bit form where PyTorch is loaded already, else with
NumPy, so that a search need not import PyTorch (seconds). In float32, both give the vectors that sentence-transformers
gives, to about 1e-6. Reimers & Gurevych 2019 (arXiv 1908.10084); Wang et al. 2020 (arXiv 2002.10957).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longreach.errors import ModelError

if TYPE_CHECKING:
    from longreach.library.embed import Vectors

LAYERS, HEADS, DIM, MAX_TOKENS = 6, 12, 384, 256
BATCH_TOKENS = 2048
"""Tokens of one batch, padding included: enough to keep a processor busy, little enough to stay in its cache."""


@dataclass
class MiniLM:
    """all-MiniLM-L6-v2 from a folder with `model.safetensors` and `tokenizer.json`. Texts are cut at 256 tokens."""

    folder: Path
    device: str
    fingerprint: str
    name: str = "embedded"
    dim: int = DIM
    _tokenizer: Any = field(default=None, repr=False)
    _operations: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> MiniLM:
        """Raises ModelError where the folder lacks a file."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            size = (folder / "model.safetensors").stat().st_size
        except Exception as error:
            raise ModelError(f"the encoder in {folder} cannot be loaded: {error}") from None
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.no_padding()
        return cls(folder, device, f"all-MiniLM-L6-v2/{size}/{MAX_TOKENS}", _tokenizer=tokenizer)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """`[texts, dim]`: in 8 bits through PyTorch where it is loaded already, else in float32 through NumPy."""
        return self.one_by_one(texts, "int8" if "torch" in sys.modules else "numpy")

    def one_by_one(self, texts: Sequence[str], form: Literal["numpy", "torch", "int8"]) -> Vectors:
        """`[texts, dim]`, one text at a time, by one form of the network."""
        import numpy as np

        operations = self._backend(form)
        vectors = np.zeros((len(texts), DIM), np.float32)
        for row, text in enumerate(texts):
            ids = self._tokenizer.encode(_encodable(text)).ids
            tokens = np.zeros((1, -(-len(ids) // 8) * 8), np.int64)  # matrices with a multiple of 8 columns go faster
            tokens[0, : len(ids)] = ids
            mask = np.zeros(tokens.shape, np.float32)
            mask[0, : len(ids)] = 1
            vectors[row] = embed(operations, tokens, mask)[0]
        return vectors

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """`[texts, dim]`, in batches of like length, through PyTorch."""
        import numpy as np

        vectors = np.zeros((len(texts), DIM), np.float32)
        if not texts:
            return vectors
        operations = self._backend("torch")
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch([_encodable(text) for text in texts])]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        while order:
            longest = len(ids[order[-1]])
            rows = order[-max(1, BATCH_TOKENS // longest) :]
            del order[-len(rows) :]
            tokens = np.zeros((len(rows), longest), np.int64)
            mask = np.zeros((len(rows), longest), np.float32)
            for row, index in enumerate(rows):
                tokens[row, : len(ids[index])] = ids[index]
                mask[row, : len(ids[index])] = 1
            vectors[rows] = embed(operations, tokens, mask)
        return vectors

    def _backend(self, kind: str) -> Any:
        with self._lock:
            if kind not in self._operations:
                self._operations[kind] = self._load(kind)
            return self._operations[kind]

    def _load(self, kind: str) -> Any:
        file = self.folder / "model.safetensors"
        if kind == "numpy":
            from longreach.library.embed.operations_numpy import NumpyOperations

            return NumpyOperations.load(file)
        if kind == "torch":
            from longreach.library.embed.operations_torch import TorchOperations

            return TorchOperations.load(file, self.device)
        from longreach.library.embed.operations_int8 import Int8Operations

        exact = self._backend("torch")
        return Int8Operations.of(exact) or exact


def embed(operations: Any, tokens: Any, mask: Any) -> Any:
    """Vectors `[batch, dim]` of unit norm of `tokens [batch, length]`; `mask` is 1 where there is a token and
    0 where there is padding."""
    with operations.run():
        tokens, mask = operations.inputs(tokens, mask)
        hidden = operations.norm(operations.look_up(tokens), "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            query, key, value = (
                operations.heads(operations.linear(hidden, f"{at}.attention.self.{part}"), HEADS)
                for part in ("query", "key", "value")
            )
            mixed = operations.linear(operations.attend(query, key, value, mask), f"{at}.attention.output.dense")
            hidden = operations.norm(mixed + hidden, f"{at}.attention.output.LayerNorm")
            inner = operations.gelu(operations.linear(hidden, f"{at}.intermediate.dense"))
            hidden = operations.norm(operations.linear(inner, f"{at}.output.dense") + hidden, f"{at}.output.LayerNorm")
        return operations.pool(hidden, mask)


def _encodable(text: str) -> str:
    """`text` with lone surrogates, which the tokenizer refuses, replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
