"""Many requests that share a few chunks: the pages of each chunk are there once, whoever uses it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from keeping import ASKED, OPENING
from keeping import keeping as made
from longreach.engine import Part, Sampling
from longreach.engine.engine import Stream
from longreach.engine.paged import PagedEngine
from longreach.engine.passages import Passages
from longreach.kv.store.key import Key

CHUNKS, REQUESTS, TOKENS = 50, 1000, 4
WORDS = ("ball", "tree", "house", "park", "cake", "dog", "bird")
HOT = [f"The {WORDS[at % 7]} was big. Lily saw a {WORDS[at // 7 % 7]} and had {at} toys. " for at in range(CHUNKS)]


class Hot:
    """An engine that is asked about the hot chunks."""

    def __init__(self, engine: PagedEngine) -> None:
        assert engine.passages is not None
        self.engine = engine
        self.passages: Passages = engine.passages
        self.opening = tuple(engine.tokenize(OPENING))
        self.chunks = [tuple(engine.tokenize(text)) for text in HOT]
        self.asked = tuple(engine.tokenize(ASKED))
        self.keys = [self.passages.key(self.opening, chunk) for chunk in self.chunks]

    def start(self, chosen: tuple[int, ...]) -> Stream:
        parts = [Part(self.opening), *(Part(self.chunks[at], True) for at in chosen), Part(self.asked)]
        return self.engine.start(parts, Sampling(max_tokens=TOKENS, ignore_eos=True))

    def pages(self, key: Key) -> np.ndarray | None:
        """The pages of a chunk in the store, if it is in pages."""
        segment = self.passages.store.resident(key)
        if segment is None:
            return None
        pages = segment.pages
        segment.release()
        return pages

    def page_count(self, tokens: int) -> int:
        return self.engine.scheduler.pages_for(tokens)


def wanted(seed: int = 0) -> list[tuple[int, ...]]:
    """Which chunks each request is about: some far more often than others."""
    chance = random.Random(seed)
    some = [tuple(chance.sample(range(CHUNKS), 3)) for _ in range(60)]
    return [some[min(int(chance.paretovariate(0.6)) - 1, len(some) - 1)] for _ in range(REQUESTS)]


def hot(storyteller: PagedEngine, folder: Path, tokens: int) -> Hot:
    """With pages for `tokens` tokens."""
    kv_bytes = storyteller.scheduler.pages_for(tokens) * storyteller.pool.page_bytes
    return Hot(made(storyteller.loaded, folder, kv_bytes=kv_bytes))


@pytest.mark.thorough
def test_a_thousand_requests_that_share_fifty_chunks_hold_the_pages_of_each_once(
    storyteller: PagedEngine, tmp_path: Path
) -> None:
    asked = hot(storyteller, tmp_path, 2 * (CHUNKS * 48 + 16) + 200 * 16)
    engine, pool = asked.engine, asked.engine.pool
    kept = asked.page_count(len(asked.opening)) + sum(asked.page_count(len(chunk)) for chunk in asked.chunks)
    engine.read_ahead([Part(asked.opening), *(Part(chunk, True) for chunk in asked.chunks), Part(asked.asked)])
    asked.start((0,)).finish()  # the opening is in pages by now, as the chunks are
    assert pool.used == kept
    own = asked.page_count(len(asked.asked) + TOKENS)
    answers: dict[tuple[int, ...], tuple[int, ...]] = {}
    every = wanted()
    for first in range(0, REQUESTS, 100):
        wave = every[first : first + 100]
        streams = [asked.start(chosen) for chosen in wave]
        assert pool.used == kept
        for stream in streams:
            next(stream)  # all of them are being answered now
        told = engine.held_pages()
        assert pool.used == kept + len(wave) * own
        assert told["requests"] + told["passages"] == pool.used
        for at, (key, chunk) in enumerate(zip(asked.keys, asked.chunks, strict=True)):
            pages = asked.pages(key)
            assert pages is not None
            assert len(pages) == asked.page_count(len(chunk))
            users = sum(at in chosen for chosen in wave)
            (holders,) = set(pool.counts[pages].tolist())
            assert holders > users if users else holders == 1  # the store, and whoever uses it
        for chosen, stream in zip(wave, streams, strict=True):
            done = stream.finish()
            assert answers.setdefault(chosen, done.token_ids) == done.token_ids
            assert done.usage.computed_tokens == len(asked.asked)
        assert pool.used == kept
    alone = hot(storyteller, tmp_path / "alone", 400)
    for chosen in list(answers)[:12]:
        assert alone.start(chosen).finish().token_ids == answers[chosen]
    engine.forget()
    assert pool.used == 0
    pool.check()


@pytest.mark.thorough
def test_where_not_all_chunks_fit_they_come_and_go_and_are_there_once_all_the_same(
    storyteller: PagedEngine, tmp_path: Path
) -> None:
    asked = hot(storyteller, tmp_path, 60 * 48)  # the store may fill half of it: some thirty chunks
    engine, pool = asked.engine, asked.engine.pool
    answers: dict[tuple[int, ...], tuple[int, ...]] = {}
    every = wanted(1)
    for first in range(0, REQUESTS, 20):
        wave = every[first : first + 20]
        streams = [asked.start(chosen) for chosen in wave]
        for stream in streams:
            next(stream)
        assert copies(asked) == 1
        for chosen, stream in zip(wave, streams, strict=True):
            done = stream.finish().token_ids
            assert answers.setdefault(chosen, done) == done
        pool.check()
    stats = asked.passages.store.stats()
    assert stats.device.evicted > 0
    alone = hot(storyteller, tmp_path / "alone", 400)
    for chosen in list(answers)[:12]:
        assert alone.start(chosen).finish().token_ids == answers[chosen]
    engine.forget()
    assert pool.used == 0
    pool.check()


def copies(asked: Hot) -> int:
    """In how many sets of pages the chunk lies that lies in most of them, of the store's and of all requests'."""
    found: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for key in asked.keys:
        pages = asked.pages(key)
        if pages is not None:
            found.setdefault(key.tokens, set()).add(tuple(pages.tolist()))
    scheduler = asked.engine.scheduler
    for job in (*scheduler.running, *scheduler.waiting):
        for segment in [*job.begins, *(job.sequence.segments if job.sequence is not None else ())]:
            if tuple(segment.tokens) in asked.chunks:
                found.setdefault(tuple(segment.tokens), set()).add(tuple(segment.pages.tolist()))
    return max(map(len, found.values()))
