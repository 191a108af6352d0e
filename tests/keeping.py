"""Engines that keep passages, for the tests of what may happen to their store.

As a program, `keeping.py MODEL STORE CODEC DISK SEED ROUNDS`: asks about passages at random, with little memory, so
that what was read goes from pages to host memory to disk all the while, and tells of each answer on standard output.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch

from longreach.engine import Engine, Part
from longreach.engine.paged import PagedEngine
from longreach.kv.codec import make
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.load import LoadedModel

OPENING = "Once upon a time, there was a little girl named Lily. "
WHO = ("Lily", "Tom", "The dog", "A bird", "Her mom", "The cat")
DID = ("had a red ball and", "went to the park and", "sat on the big tree and")
THEN = ("was very happy. It was a sunny day. ", "saw a small house. ")
PASSAGES = [f"{who} {did} {then}" for who in WHO for did in DID for then in THEN]
ASKED = "Then the girl"
TOKENS = 10


def keeping(
    loaded: LoadedModel,
    folder: Path,
    *,
    codec: str = "raw",
    host: int = 1 << 20,
    disk: int = 64 << 20,
    kv_bytes: int = 32 << 20,
    fingerprint: str = "stories",
    kv_dtype: torch.dtype | None = None,
) -> PagedEngine:
    """An engine that keeps passages in `folder`."""
    engine = PagedEngine(loaded, kv_bytes=kv_bytes, kv_dtype=kv_dtype)
    named = Named(codec, make(codec))
    engine.keep_passages(KVStore.open(folder, fingerprint=fingerprint, codec=named, host_bytes=host, disk_bytes=disk))
    return engine


def forgetful(loaded: LoadedModel, folder: Path) -> PagedEngine:
    """An engine that reads passages apart and keeps them nowhere but in pages."""
    return keeping(loaded, folder, host=0, disk=0)


def store_of(engine: PagedEngine) -> KVStore:
    assert engine.passages is not None
    return engine.passages.store


def prompt(engine: PagedEngine, chosen: list[int], asked: str = ASKED) -> list[Part]:
    """Asks about the passages `chosen`."""
    pieces = [(OPENING, False), *((PASSAGES[at], True) for at in chosen), (asked, False)]
    return [Part(tuple(engine.tokenize(text)), passage) for text, passage in pieces]


def answer(engine: PagedEngine, chosen: list[int]) -> list[int]:
    """The tokens of the answer."""
    return list(engine.generate([prompt(engine, chosen)], max_tokens=TOKENS)[0].token_ids)


def choices(seed: int, rounds: int, of: int = len(PASSAGES)) -> list[list[int]]:
    """Which passages each round asks about."""
    chance = random.Random(seed)
    return [chance.sample(range(of), 3) for _ in range(rounds)]


def main(model: str, store: str, codec: str, disk: str, seed: str, rounds: str) -> None:
    loaded = Engine.load(model, device="cpu", dtype="float32", reuse="off", offline=True)
    assert isinstance(loaded, PagedEngine)
    few = loaded.pool.page_bytes * loaded.scheduler.pages_for(1) * 40  # pages for some five passages
    engine = keeping(loaded.loaded, Path(store), codec=codec, host=60_000, disk=int(disk), kv_bytes=few)
    for chosen in choices(int(seed), int(rounds)):
        print(json.dumps([chosen, answer(engine, chosen)]), flush=True)
    store_of(engine).close()
    print(json.dumps(["done", store_of(engine).stats().disk.damaged]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
