"""Reuse over hundreds of questions, where no tier can hold all chunks: what it gains at first, and what it keeps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from longreach.context.assemble import assemble_chat
from longreach.engine import Prompt
from longreach.engine.paged import PagedEngine
from longreach.engine.stores import CODEC
from longreach.kv.codec import make
from longreach.kv.store.entry import Named
from longreach.kv.store.stats import StoreStats
from longreach.kv.store.store import KVStore
from longreach.model.adapters import adapter_for
from longreach.model.identity import kv_fingerprint

CHUNKS, QUESTIONS, PASSAGES, EXPONENT = 200, 500, 8, 1.0
DEVICE, HOST, DISK = 1 / 8, 1 / 8, 1 / 2
"""What of all chunks' bytes the tiers may hold: pages of the pool, host memory, disk."""
LEAST = 2048
"""Tokens that the pool holds in any case."""
EVERY = 5
"""One question in so many is read as a whole too."""


@dataclass
class Hundred:
    """Questions in a row. `full` are seconds a token of those read as a whole, the others are of all questions: seconds
    to the first token, tokens of the prompts, and those of them that were not read."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    reused: list[int] = field(default_factory=list)
    full: list[float] = field(default_factory=list)

    @property
    def gain(self) -> float:
        """Times as soon as by reading prompts as a whole, over all of them."""
        return statistics.median(self.full) * sum(self.tokens) / sum(self.seconds)


def steady(
    make_engine: Callable[[int | None], PagedEngine],
    exact: PagedEngine,
    texts: Sequence[str],
    asked: Sequence[str],
    folder: Path,
    questions: int = QUESTIONS,
) -> tuple[list[Hundred], StoreStats]:
    """Questions on `texts`, chosen by Zipf's law, a fifth of them in each part of the result; and what the store holds
    at the end. `make_engine(kv_bytes)` makes engines that keep nothing."""
    engine = _limited(make_engine, exact, texts, folder)
    assert engine.passages is not None
    parts = [Hundred() for _ in range(5)]
    for number, chosen in enumerate(drawn(len(texts), questions)):
        part = parts[number * len(parts) // questions]
        prompt = assemble_chat(asked[number % len(asked)], [texts[at] for at in chosen])
        began = time.perf_counter()
        stream = engine.stream(prompt, max_tokens=2)
        next(stream)
        part.seconds.append(time.perf_counter() - began)
        usage = stream.finish().usage
        part.tokens.append(usage.prompt_tokens)
        part.reused.append(usage.reused_tokens)
        if number % EVERY == 0 or not part.full:
            part.full.append(_whole(exact, prompt) / usage.prompt_tokens)
    engine.passages.store.flush()
    return parts, engine.passages.store.stats()


def drawn(chunks: int, questions: int) -> Iterator[list[int]]:
    """The chunks of each question, in an order of their own."""
    chance = np.random.default_rng(0)
    shares = 1 / np.arange(1, chunks + 1) ** EXPONENT
    for _ in range(questions):
        yield chance.choice(chunks, min(PASSAGES, chunks // 3), replace=False, p=shares / shares.sum()).tolist()


def _whole(engine: PagedEngine, prompt: Prompt) -> float:
    """Seconds to the first token where nothing is kept."""
    engine.forget()
    began = time.perf_counter()
    stream = engine.stream(prompt, max_tokens=1)
    next(stream)
    seconds = time.perf_counter() - began
    stream.finish()
    return seconds


def _limited(
    make_engine: Callable[[int | None], PagedEngine], exact: PagedEngine, texts: Sequence[str], folder: Path
) -> PagedEngine:
    """An engine with limits below the bytes of all `texts`. Passages may take half of the pool."""
    tokens = sum(exact.count(text) for text in texts)
    shapes = exact.bridge.shapes
    a_token = exact.pool.page_bytes // exact.pool.page_size * shapes.layers * shapes.kv_heads
    coded = shapes.layers * shapes.kv_heads * (shapes.head_dim + shapes.value_dim)  # 8 bits
    engine = make_engine(max(LEAST, 2 * int(DEVICE * tokens)) * a_token)
    store = KVStore.open(
        folder,
        fingerprint=kv_fingerprint(engine.loaded, str(engine.pool.keys.dtype)),
        codec=Named(CODEC, make(CODEC)),
        host_bytes=int(HOST * tokens * coded),
        disk_bytes=int(DISK * tokens * coded),
    )
    engine.keep_passages(store, adapter_for(engine.loaded.model))
    engine.quicken()
    return engine
