"""Passages that come into pages layer by layer: whenever their layers come, or do not, answers are those of before."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch

from keeping import OPENING, answer, prompt, store_of
from longreach.engine import arriving, loading
from longreach.engine.arriving import Arriving, NotThereError
from longreach.engine.paged import PagedEngine
from longreach.kv.codec import Opened, make
from longreach.kv.pool import OutOfPagesError
from longreach.kv.reuse import reuses
from longreach.kv.reuse.cacheblend import CacheBlend
from longreach.kv.store.entry import Entry
from longreach.kv.store.key import Key
from longreach.kv.store.open_entry import OpenEntry
from longreach.kv.store.pages import gather
from longreach.kv.store.store import KVStore

METHODS = {
    "naive": "naive",
    "full_prefill": "full_prefill",
    "epic": "epic(share=0.3)",
    "gaze": "gaze(share=0.3)",
    "cacheblend": "cacheblend(share=0.3)",
    "cache_craft": "cache_craft(share=0.3)",
    "ape": "ape",
}
CHOSEN = [3, 0, 5, 3]

pytestmark = pytest.mark.usefixtures("patient", "by_two")


@pytest.fixture
def by_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers at a time: of the model's five, three times."""
    monkeypatch.setattr(arriving, "LAYERS", 2)


@dataclass
class Coder:
    """The codec `inner`; `before(low)` is called before the layers from `low` on are decoded."""

    inner: Any = field(default_factory=lambda: make("raw"))
    before: Callable[[int], object] = lambda _: None
    spec: str = "for tests"

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        return bytes(self.inner.encode(keys, values, start))

    def open(self, data: bytes) -> Opened:
        opened: Opened = self.inner.open(data)

        def layers(low: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
            if end - low < opened.shapes[0][0]:  # not where all are decoded at once
                self.before(low)
            return opened.layers(low, end)

        def straight(low: int, end: int, *into: Any) -> bool:
            assert opened.straight is not None
            self.before(low)
            return opened.straight(low, end, *into)

        return Opened(opened.shapes, layers, straight if opened.straight else None)


Made = Callable[..., PagedEngine]


@pytest.fixture
def keeping(storyteller: PagedEngine, tmp_path: Path) -> Made:
    """Makes engines that keep passages in one folder and repair them."""

    def made(coder: Coder, method: str = "epic(share=0.3)", kv_dtype: torch.dtype | None = None) -> PagedEngine:
        engine = PagedEngine(storyteller.loaded, kv_bytes=32 << 20, kv_dtype=kv_dtype)
        limits = {"host_bytes": 0, "disk_bytes": 64 << 20}
        engine.keep_passages(KVStore.open(tmp_path, fingerprint="stories", codec=coder, **limits))
        assert engine.passages is not None
        repair = reuses.make(method)
        if repair.notes:
            engine.passages.read_behind(engine.tokenize("It was a dark night. "))
        engine.passages.repair_by(repair)
        return engine

    return made


def filled(made: Made, method: str = "epic(share=0.3)", kv_dtype: torch.dtype | None = None) -> list[int]:
    """Have passages on the disk; the answer."""
    engine = made(Coder(), method, kv_dtype)
    wanted = answer(engine, CHOSEN)
    store_of(engine).close()
    return wanted


def kept_of(engine: PagedEngine) -> list[Entry]:
    """What lies in pages of the passages `CHOSEN`."""
    assert engine.passages is not None
    store, opening = store_of(engine), engine.tokenize(OPENING)
    found = []
    for part in prompt(engine, CHOSEN)[1:-1]:
        segment = store.resident(engine.passages.key(opening, part.token_ids))
        assert segment is not None
        found.append(gather(segment))
        segment.release()
    return found


def assert_nothing_is_left(engine: PagedEngine) -> None:
    store_of(engine).flush()
    engine.pool.check()
    engine.forget()
    assert engine.pool.used == 0
    engine.pool.check()


class Asked:
    """Lets a decoder go on with layers only when a forward waits for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layer = -1
        self.waited: list[int] = []
        self.called = Event()
        real = Arriving.wait

        def wait(arrives: Arriving, layer: int) -> None:
            if arrives._there <= layer:
                self.waited.append(layer)
            self.layer = max(self.layer, layer)
            self.called.set()
            real(arrives, layer)

        monkeypatch.setattr(Arriving, "wait", wait)

    def __call__(self, low: int) -> None:
        while self.layer < low:
            assert self.called.wait(60)
            self.called.clear()


def test_every_method_is_in_the_matrix() -> None:
    assert set(reuses.names()) == set(METHODS)


@pytest.mark.parametrize("kv_dtype", [None, torch.int8], ids=str)
@pytest.mark.parametrize("method", METHODS.values())
def test_answers_and_pages_are_those_of_passages_that_were_all_there_before(
    keeping: Made, method: str, kv_dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(keeping, method, kv_dtype)
    with monkeypatch.context() as during:
        during.setattr(loading.Loading, "open", lambda _: None)
        whole = keeping(Coder(), method, kv_dtype)
        wanted = whole.explore(prompt(whole, CHOSEN))
    asked = Asked(monkeypatch)
    engine = keeping(Coder(before=asked), method, kv_dtype)
    found = engine.explore(prompt(engine, CHOSEN))
    assert torch.equal(found.root, wanted.root)
    once = {part.token_ids for part in prompt(engine, CHOSEN)[:-1]}
    assert found.loaded_tokens == wanted.loaded_tokens == sum(map(len, once))
    assert found.reused_tokens == wanted.reused_tokens
    assert found.recomputed_tokens == wanted.recomputed_tokens
    for one, other in zip(kept_of(engine), kept_of(whole), strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    # `naive` computes nothing: only the end waits; `ape` does not repair: all is there before
    assert asked.waited == {"naive": [4], "ape": []}.get(method, [0, 2, 4])
    del found, wanted
    for each in (whole, engine):
        assert_nothing_is_left(each)


def test_what_lies_in_pages_already_is_used_beside_what_arrives(keeping: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = filled(keeping)
    asked = Asked(monkeypatch)
    engine = keeping(Coder(before=asked))
    answer(engine, [0])
    asked.layer = -1
    done = engine.generate([prompt(engine, CHOSEN)], max_tokens=10)[0]
    assert list(done.token_ids) == wanted
    new = sum(len(part.token_ids) for part in prompt(engine, [3, 5])[1:-1])
    assert done.usage.loaded_tokens == new
    assert_nothing_is_left(engine)


def test_where_a_passage_must_be_read_loads_go_on_beside_that(keeping: Made) -> None:
    filled(keeping)
    low: list[int] = []
    engine = keeping(Coder(before=low.append))
    done = engine.generate([prompt(engine, [*CHOSEN, 7])], max_tokens=10)[0]
    assert done.usage.loaded_tokens > 0
    assert not low  # decoded as a whole
    assert_nothing_is_left(engine)


def test_a_decoder_that_hangs_changes_no_answer_and_no_page(keeping: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = filled(keeping)
    go_on, hangs = Event(), Event()

    def hang(low: int) -> None:
        if low:
            hangs.set()
            assert go_on.wait(60)

    engine = keeping(Coder(before=hang))
    with monkeypatch.context() as during:
        during.setattr(loading.Loading, "patience", 0.05)
        done = engine.generate([prompt(engine, CHOSEN)], max_tokens=10)[0]
    assert hangs.is_set()
    assert list(done.token_ids) == wanted
    opening = len(engine.tokenize(OPENING))
    assert done.usage.loaded_tokens == opening  # which came by itself, before
    before, held = kept_of(engine), engine.pool.used
    go_on.set()
    store_of(engine).flush()
    assert engine.pool.used == held
    for one, other in zip(kept_of(engine), before, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    assert answer(engine, CHOSEN) == wanted
    assert_nothing_is_left(engine)
    pool = weakref.ref(engine.pool)
    del engine
    gc.collect()
    gc.collect()
    assert pool() is None


def arriving_in(engine: PagedEngine, patience: float = 60.0) -> tuple[Arriving, dict[Key, OpenEntry]]:
    """One that has nothing yet, and two passages that were opened."""
    assert engine.passages is not None
    store, opening = store_of(engine), engine.tokenize(OPENING)
    keys = [engine.passages.key(opening, part.token_ids) for part in prompt(engine, [3, 0])[1:-1]]
    opened = {key: store.fetch_open(key).result() for key in keys}
    return Arriving(store, engine.pool, patience), {key: entry for key, entry in opened.items() if entry is not None}


@pytest.mark.parametrize("at", [0, 2, 4])
def test_once_nobody_waits_nothing_is_copied_into_pages_that_are_others(keeping: Made, at: int) -> None:
    filled(keeping)
    go_on, hangs = Event(), Event()

    def hang(low: int) -> None:
        if low == at:
            hangs.set()
            assert go_on.wait(60)

    engine = keeping(Coder(before=hang))
    arrives, opened = arriving_in(engine)
    assert len(opened) == 2
    with arrives:
        for key, entry in opened.items():
            arrives.add(key, entry)
        arrives.begin()
        assert hangs.wait(60)
        assert engine.pool.used > 0
    assert engine.pool.used == 0
    engine.pool.take(len(engine.pool))
    for stored in engine.pool.stored:
        stored.fill_(7)
    go_on.set()
    store_of(engine).flush()
    assert all(bool((stored == 7).all()) for stored in engine.pool.stored)


def test_pages_are_let_go_of_when_what_is_being_copied_is_there(keeping: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(keeping)
    copies, leaves, held = Event(), Event(), list[int]()
    engine, real = keeping(Coder()), arriving.bring

    def bring(*given: Any) -> None:
        copies.set()
        assert leaves.wait(60)
        time.sleep(0.05)  # in which pages that nobody guards would go
        held.append(engine.pool.used)
        real(*given)

    monkeypatch.setattr(arriving, "bring", bring)
    arrives, opened = arriving_in(engine)
    with arrives:
        for key, entry in opened.items():
            arrives.add(key, entry)
        before = engine.pool.used
        arrives.begin()
        assert copies.wait(60)
        leaves.set()
    store_of(engine).flush()
    assert set(held) == {before}
    assert engine.pool.used == 0


def test_what_is_decoded_into_pages_at_once_arrives_layer_by_layer_too(
    keeping: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keeping(Coder(make("int8")))
    answer(first, CHOSEN)
    store_of(first).close()
    roots = []
    for whole in (True, False):
        low: list[int] = []
        engine = keeping(Coder(make("int8"), before=low.append))
        with monkeypatch.context() as during:
            if whole:
                during.setattr(loading.Loading, "open", lambda _: None)
            roots.append(engine.explore(prompt(engine, CHOSEN)).root)
        opening, three = [0], [0] * 3  # each was decoded once, or in three pieces
        assert sorted(low) == opening + (three if whole else [*three, 2, 2, 2, 4, 4, 4])
    assert torch.equal(*roots)


@dataclass
class Ending(CacheBlend):
    """As `cacheblend`, but that in the third layer nobody goes on: from there on stored keys and values are taken."""

    def narrow(self, layer: int, tokens: int, fresh: torch.Tensor, stored: torch.Tensor) -> torch.Tensor | None:
        if layer == 2:
            return torch.zeros(fresh.shape[2], dtype=torch.bool)
        return super().narrow(layer, tokens, fresh, stored)


def test_layers_that_no_token_gets_to_are_waited_for_too(keeping: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(keeping)
    roots = []
    for coder in (Coder(), Coder(before=Asked(monkeypatch))):
        engine = keeping(coder)
        assert engine.passages is not None
        engine.passages.repair_by(Ending(share=0.3))
        with monkeypatch.context() as during:
            if not roots:
                during.setattr(loading.Loading, "open", lambda _: None)
            found = engine.explore(prompt(engine, CHOSEN))
        assert found.recomputed_tokens > 0
        roots.append(found.root)
    assert torch.equal(*roots)


def test_waiting_ends_where_nothing_comes_and_where_nothing_will(keeping: Made) -> None:
    filled(keeping)
    go_on = Event()
    engine = keeping(Coder(before=lambda low: low < 2 or go_on.wait(60)))
    arrives, opened = arriving_in(engine, patience=0.05)
    with arrives:
        for key, entry in opened.items():
            arrives.add(key, entry)
        arrives.begin()
        with pytest.raises(NotThereError) as told:
            arrives.wait(4)
        assert told.value.late
        go_on.set()
    store_of(engine).flush()
    arrives, opened = arriving_in(engine)
    store_of(engine).close()
    with arrives:
        for key, entry in opened.items():
            arrives.add(key, entry)
        arrives.begin()
        with pytest.raises(NotThereError) as told:
            arrives.wait(0)
        assert not told.value.late
    engine.pool.check()
    assert engine.pool.used == 0


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_layer_that_cannot_be_decoded_changes_no_answer(keeping: Made, error: type[Exception], at: int) -> None:
    wanted = filled(keeping)

    def fail(low: int) -> None:
        if low == at:
            raise error("for this time")

    engine = keeping(Coder(before=fail))
    done = engine.generate([prompt(engine, CHOSEN)], max_tokens=10)[0]
    assert list(done.token_ids) == wanted
    assert done.usage.loaded_tokens > 0  # as a whole
    assert_nothing_is_left(engine)


def test_passages_that_cannot_be_decoded_at_all_are_read(keeping: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = filled(keeping)

    def fail(*_: object) -> Any:
        raise MemoryError("for this time")

    engine = keeping(Coder(before=fail))
    monkeypatch.setattr("longreach.kv.store.open_entry.OpenEntry.ready", fail)
    done = engine.generate([prompt(engine, CHOSEN)], max_tokens=10)[0]
    assert list(done.token_ids) == wanted
    assert done.usage.loaded_tokens == 0
    assert_nothing_is_left(engine)


def test_a_store_that_is_closed_while_passages_arrive_changes_no_answer(
    keeping: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = filled(keeping)
    engine, real = keeping(Coder()), Arriving.begin

    def begin(arrives: Arriving) -> None:
        store_of(engine).close()
        real(arrives)

    monkeypatch.setattr(Arriving, "begin", begin)
    assert answer(engine, CHOSEN) == wanted
    engine.pool.check()


def test_two_prompts_at_once_hold_a_passage_once(keeping: Made) -> None:
    wanted = filled(keeping)
    engine, found = keeping(Coder()), list[list[int]]()
    threads = [Thread(target=lambda: found.append(answer(engine, CHOSEN))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted, wanted]
    passages = {part.token_ids for part in prompt(engine, CHOSEN)[:-1]}
    held = engine.held_pages()["passages"]
    assert held == sum(engine.scheduler.pages_for(len(tokens)) for tokens in passages)
    assert_nothing_is_left(engine)


@pytest.mark.parametrize("error", [OutOfPagesError, RuntimeError])
@pytest.mark.parametrize("where", ["passage_reader.PassageReader.reserve", "runner.Runner.patch"])
def test_what_goes_wrong_beside_leaves_no_page_behind(
    keeping: Made, monkeypatch: pytest.MonkeyPatch, error: type[Exception], where: str
) -> None:
    wanted = filled(keeping)
    engine = keeping(Coder())
    answer(engine, [])
    calls: list[object] = []

    def fails(*given: Any) -> None:
        calls.append(given)
        raise error("for this time")

    with monkeypatch.context() as during:
        during.setattr(f"longreach.engine.{where}", fails)
        if error is RuntimeError:
            with pytest.raises(RuntimeError, match="for this time"):
                answer(engine, CHOSEN)
        else:
            assert len(answer(engine, CHOSEN)) == len(wanted)  # read as a whole
    assert calls
    assert answer(engine, CHOSEN) == wanted
    assert_nothing_is_left(engine)
