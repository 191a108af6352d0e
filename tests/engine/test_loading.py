"""Load or compute: whatever the tiers are like, no answer is later than by computing all, but for half a passage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longreach.engine import Part, Sampling, loading
from longreach.engine.loading import PATIENCE, Loading
from longreach.engine.paged import PagedEngine
from longreach.kv.codec import Opened, make
from longreach.kv.store.disk import DiskTier
from longreach.kv.store.entry import Named
from longreach.kv.store.key import Key
from longreach.kv.store.open_entry import OpenEntry
from longreach.kv.store.rate import Rate
from longreach.kv.store.store import KVStore

KV = torch.zeros(1, 1, 1, 1)
TOKENS = 10


Made = Callable[[dict[Key, float]], "Clocked"]


def keys(count: int) -> list[Key]:
    return [Key.of("a model", [at] * TOKENS) for at in range(count)]


@dataclass
class Clocked:
    """A store on whose thread each load takes the seconds of `takes`, by a clock that only waiting and reading move."""

    takes: dict[Key, float]
    rate: Rate = field(default_factory=Rate)
    now: float = 0.0
    free: float = 0.0
    queue: list[tuple[float, Key, Future[OpenEntry | None]]] = field(default_factory=list)
    fetched: list[Key] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return not self.queue

    def find(self, wanted: Sequence[Key]) -> Future[list[Key]]:
        future: Future[list[Key]] = Future()
        future.set_result([key for key in wanted if key in self.takes])
        return future

    def fetch(self, key: Key) -> Future[OpenEntry | None]:
        future: Future[OpenEntry | None] = Future()
        self.fetched.append(key)
        if key in self.takes:
            self.queue.append((self.now, key, future))
            self.go_on(self.now)
        else:
            future.set_result(None)
        return future

    def fetch_open(self, key: Key) -> Future[OpenEntry | None]:
        return self.fetch(key)

    def loading(self, key: Key) -> float | None:
        return self.rate.of(len(key.tokens))

    def late(self, key: Key, seconds: float) -> None:
        self.rate.above(len(key.tokens), 2 * seconds)

    def go_on(self, until: float) -> None:
        """Let time go by."""
        while self.queue and self.begins <= until:
            _, key, future = self.queue[0]
            if not future.running() and not future.set_running_or_notify_cancel():
                self.queue.pop(0)
            elif (ends := self.begins + self.takes[key]) <= until:
                self.free = ends
                self.queue.pop(0)
                self.rate.note(len(key.tokens), self.takes[key])
                future.set_result(OpenEntry(Opened.of(KV, KV), 0, 1.0, None))
            else:
                break
        self.now = until

    @property
    def begins(self) -> float:
        """When the thread begins with what is first in the queue."""
        return max(self.free, self.queue[0][0])

    def wait(self, futures: Sequence[Future[Any]], seconds: float) -> tuple[list[Any], None]:
        until = self.now + seconds
        while self.now < until and not futures[0].done():
            self.go_on(min(until, self.begins + self.takes[self.queue[0][1]]))
        return [each for each in futures if each.done()], None


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[Key, float]], Clocked]:
    """Makes stores by the clock of the last of which waiting goes."""

    def made(takes: dict[Key, float]) -> Clocked:
        store = Clocked(takes)
        monkeypatch.setattr(loading, "wait", store.wait)
        return store

    return made


def done(store: Clocked, reading: Rate, wanted: list[Key], takes: float, batch: int = 2) -> tuple[list[Key], list[Key]]:
    """What was loaded and what was read, where reading a passage takes `takes` seconds."""
    loaded: list[Key] = []
    read: list[Key] = []

    def read_some(rest: list[Key]) -> list[Key]:
        store.go_on(store.now + takes * len(rest[:batch]))
        read.extend(rest[:batch])
        return rest[:batch]

    Loading(store, reading, wanted).run(lambda key, _: loaded.append(key), read_some)  # type: ignore[arg-type]
    assert sorted(key.digest for key in loaded + read) == sorted(key.digest for key in wanted)
    return loaded, read


def known(seconds: float) -> Rate:
    """Reading a passage takes `seconds`."""
    rate = Rate()
    rate.note(TOKENS, seconds)
    return rate


def test_what_is_kept_is_loaded_and_the_rest_is_read(clocked: Made) -> None:
    all_of = keys(5)
    store = clocked(dict.fromkeys(all_of[:3], 0.01))
    assert done(store, known(1.0), all_of, 1.0) == (all_of[:3], [all_of[4], all_of[3]])
    assert store.now == pytest.approx(2.0)  # loads went on meanwhile


def test_with_the_first_that_is_late_waiting_ends(clocked: Made) -> None:
    all_of = keys(6)
    store = clocked({key: 0.1 if at < 2 else 100.0 for at, key in enumerate(all_of)})
    loaded, read = done(store, known(1.0), all_of, 1.0)
    assert (loaded, read) == (all_of[:2], all_of[:1:-1])
    assert store.now == pytest.approx(0.2 + PATIENCE + 4.0)


def test_a_disk_that_pauses_costs_what_is_read_meanwhile_and_no_more(clocked: Made) -> None:
    all_of = keys(6)
    store = clocked({key: 0.01 if at else 1.2 for at, key in enumerate(all_of)})
    assert done(store, known(1.0), all_of, 1.0) == (all_of[:4], [all_of[5], all_of[4]])
    assert store.now == pytest.approx(PATIENCE + 2.0)


def test_what_comes_late_is_taken_where_it_was_not_read_yet(clocked: Made) -> None:
    all_of = keys(4)
    store = clocked({all_of[0]: 0.9})
    store.rate.note(TOKENS, 2.0)  # dearer than reading: looked at, not waited for
    assert done(store, known(1.0), all_of[:2], 1.0, batch=1) == (all_of[:1], [all_of[1]])
    assert store.now == pytest.approx(1.0)
    store = clocked({all_of[0]: 2.1})
    store.rate.note(TOKENS, 2.0)
    assert done(store, known(1.0), all_of[:2], 1.0, batch=1) == ([], [all_of[1], all_of[0]])
    store = clocked({all_of[0]: 0.7, all_of[1]: 0.1})
    assert done(store, known(1.0), all_of[:3], 1.0, batch=1) == (all_of[:2], [all_of[2]])
    assert store.now == pytest.approx(1.0)


def opened_or_done(store: Clocked, reading: Rate, wanted: list[Key], takes: float, batch: int = 2) -> bool:
    """Whether all of them were opened; else they were loaded and read as by `done`."""

    def read_some(rest: list[Key]) -> list[Key]:
        store.go_on(store.now + takes * len(rest[:batch]))
        return rest[:batch]

    loading = Loading(store, reading, wanted)  # type: ignore[arg-type]
    opened = loading.open()
    if opened is None:
        loading.run(lambda *_: None, read_some)
    return opened is not None and list(opened) == wanted


def test_what_is_all_kept_is_opened(clocked: Made) -> None:
    all_of = keys(4)
    store = clocked(dict.fromkeys(all_of, 0.1))
    assert opened_or_done(store, known(1.0), all_of, 1.0)
    assert store.now == pytest.approx(0.4)


def test_nothing_is_opened_where_something_must_be_read(clocked: Made) -> None:
    all_of = keys(4)
    store = clocked(dict.fromkeys(all_of[:3], 0.1))
    assert not opened_or_done(store, known(1.0), all_of, 1.0)
    assert store.now == pytest.approx(1.0)  # the loads went on meanwhile
    assert store.fetched == all_of[:3]


def test_what_was_opened_before_one_was_late_is_not_read(clocked: Made) -> None:
    all_of = keys(4)
    store = clocked({key: 0.1 if at < 2 else 100.0 for at, key in enumerate(all_of)})
    assert not opened_or_done(store, known(1.0), all_of, 1.0)
    assert store.now == pytest.approx(0.2 + PATIENCE + 2.0)


def test_a_slow_tier_is_left_alone_until_it_is_quick_again(clocked: Made) -> None:
    all_of = keys(4)
    store = clocked(dict.fromkeys(all_of, 50.0))
    reading = known(1.0)
    assert done(store, reading, all_of, 1.0)[1] == all_of[::-1]
    before = store.now
    assert done(store, reading, all_of, 1.0)[1] == all_of[::-1]
    assert store.now == pytest.approx(before + 4.0)  # nobody waited
    store.takes = dict.fromkeys(all_of, 0.01)
    store.go_on(store.now + 100.0)
    for _ in range(10):
        done(store, reading, all_of, 1.0)
        store.go_on(store.now + 1.0)
    assert done(store, reading, all_of, 1.0) == (all_of, [])


def test_a_slow_tier_is_given_one_load_at_a_time(clocked: Made) -> None:
    all_of = keys(4)
    store = clocked(dict.fromkeys(all_of, 1000.0))
    store.rate.note(TOKENS, 1000.0)
    for _ in range(5):
        done(store, known(1.0), all_of, 1.0)
    assert store.fetched == all_of[:1]


@pytest.mark.parametrize("begin", [done, opened_or_done])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loads=st.lists(st.none() | st.floats(0.0, 10.0), min_size=1, max_size=12),
    guess=st.none() | st.floats(0.001, 10.0),
    batch=st.integers(1, 5),
)
def test_no_store_is_never_sooner_by_more_than_half_a_passage(
    clocked: Made, begin: Callable[..., object], loads: list[float | None], guess: float | None, batch: int
) -> None:
    all_of = keys(len(loads))
    store = clocked({key: takes for key, takes in zip(all_of, loads, strict=True) if takes is not None})
    if guess is not None:
        store.rate.note(TOKENS, guess)
    begin(store, known(1.0), all_of, 1.0, batch)
    assert store.now <= len(loads) + PATIENCE + 1e-9


OPENING = "Once upon a time, there was a little girl named Lily. "
PASSAGES = ["She had a red ball and a small dog. ", "One day a big bird came to the tree. ", "It sang a song. "]


def prompt(engine: PagedEngine) -> list[Part]:
    pieces = [(OPENING, False), *((text, True) for text in PASSAGES), ("Then the girl", False)]
    return [Part(tuple(engine.tokenize(text)), passage) for text, passage in pieces]


def keeping(storyteller: PagedEngine, folder: Path) -> tuple[PagedEngine, KVStore]:
    engine = PagedEngine(storyteller.loaded, kv_bytes=32 << 20)
    codec = Named("raw", make("raw"))
    store = KVStore.open(folder, fingerprint="stories", codec=codec, host_bytes=0, disk_bytes=64 << 20)
    engine.keep_passages(store)
    return engine, store


def test_a_disk_that_hangs_changes_no_answer_and_is_used_when_it_is_back(
    storyteller: PagedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, store = keeping(storyteller, tmp_path)
    first = engine.generate([prompt(engine)], max_tokens=8)[0]
    store.close()
    real, back = DiskTier.read, Event()

    def hangs(tier: DiskTier, key: Key) -> Any:
        back.wait()
        return real(tier, key)

    monkeypatch.setattr(DiskTier, "read", hangs)
    monkeypatch.setattr(loading, "UNKNOWN", 0.01)
    engine, store = keeping(storyteller, tmp_path)
    try:
        done = engine.generate([prompt(engine)], max_tokens=8)[0]
        assert done.token_ids == first.token_ids
        assert done.usage.reused_tokens == 0
    finally:
        back.set()
    store.flush()
    assert engine.generate([prompt(engine)], max_tokens=8)[0].token_ids == first.token_ids
    store.close()
    engine, store = keeping(storyteller, tmp_path)
    monkeypatch.setattr(loading, "UNKNOWN", 60.0)
    monkeypatch.setattr(loading, "PATIENCE", 1e6)
    again = engine.generate([prompt(engine)], max_tokens=8)[0]
    assert again.token_ids == first.token_ids
    assert again.usage.reused_tokens > 0


def test_what_was_read_is_written_after_the_answer_and_not_before(
    storyteller: PagedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, store = keeping(storyteller, tmp_path)
    stream = engine.stream(prompt(engine), max_tokens=4)
    next(stream)
    assert store.unwritten == len(PASSAGES) + 1
    store.flush()
    assert not list(tmp_path.rglob("*.kv1"))
    stream.finish()
    assert store.unwritten == 0
    store.flush()
    assert len(list(tmp_path.rglob("*.kv1"))) == len(PASSAGES) + 1


def test_what_waits_to_be_written_is_not_lost_when_its_pages_go(storyteller: PagedEngine, tmp_path: Path) -> None:
    engine, store = keeping(storyteller, tmp_path)
    stream = engine.start(prompt(engine), Sampling(max_tokens=4))
    next(stream)
    stream.cancel()
    assert store.unwritten == len(PASSAGES) + 1
    engine.scheduler.evict(len(engine.pool))
    store.flush()
    assert store.unwritten == 0
    assert len(list(tmp_path.rglob("*.kv1"))) == len(PASSAGES) + 1
