"""What the tests of loading and chunking share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from longreach.tokens import Tokenizer

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k" / "tokenizer.json"


class HashingEncoder:
    """Embeds a text as counts of its hashed words: the same words, the same vector."""

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.full((len(texts), 32), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, sum(word.encode()) % 32] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    embed_queries = embed_documents


def words(text: str) -> int:
    """Counts words and signs: a token counter without a method `many`."""
    return len(re.findall(r"\w{1,8}|[^\w\s]", text))


@pytest.fixture(scope="session")
def encoder() -> HashingEncoder:
    return HashingEncoder()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A byte-pair tokenizer trained on a few lines, which knows every byte."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<s>"],
    )
    backend.train_from_iterator(["the cat sat on the mat and the dog ran to the house"] * 4, trainer)
    return Tokenizer(backend)


@pytest.fixture(params=["byte-pair", "words"])
def count(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Callable[[str], int]:
    return tokenizer if request.param == "byte-pair" else words
