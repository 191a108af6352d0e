"""The store: what is got is what was put, wherever it lay; every tier within its limit; every page free or held."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kv.chunks import DIM, HEADS, LAYERS, Halves, entry_of, key_of, open_store, same, tokens_of
from longreach.errors import InputError
from longreach.kv.codec import make
from longreach.kv.pool import EMPTY, OutOfPagesError, PagePool
from longreach.kv.segment import Segment
from longreach.kv.store import Entry, Key, KVStore, Named, files
from longreach.kv.store.disk import DiskTier
from longreach.kv.store.estimate import disk_bytes, usage
from longreach.kv.store.format import Encoded
from longreach.kv.store.pages import gather, place
from longreach.model.shapes import KVShape

SIZE = 4
NUMBERS = st.integers(0, 20)


class Store(RuleBasedStateMachine):
    """Chunks that are put, wanted, pinned, moved between tiers and lost again, beside what must hold of them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.put_once: set[int] = set()
        self.pins: Counter[int] = Counter()
        self.safe: set[int] = set()  # pinned, and seen on the disk since
        self.used: list[tuple[int, Segment]] = []
        self.used_bytes = 0  # when one was last used
        self.pool = PagePool(60, SIZE, DIM)

    @initialize(host=st.sampled_from([0, 700, 1 << 20]), disk=st.sampled_from([0, 1500, 1 << 20]))
    def begin(self, host: int, disk: int) -> None:
        self.limits = {"host": host, "disk": disk}
        self.open()

    def open(self) -> None:
        self.store = open_store(self.folder, **self.limits)
        self.store.attach(self.pool, 40 * self.pool.page_bytes)

    def key(self, number: int) -> Key:
        return key_of(self.store, number)

    @rule(number=NUMBERS)
    def put(self, number: int) -> None:
        kept = self.store.put(self.key(number), entry_of(number))
        self.store.flush()
        self.put_once.add(number)
        assert kept == (self.key(number) in self.store._host or self.key(number) in self.store._disk)
        if number in self.safe or (self.pins[number] and self.key(number) in self.store._disk):
            self.safe.add(number)

    @rule(number=NUMBERS)
    def offer(self, number: int) -> None:
        assert self.store.offer(self.key(number), entry_of(number))
        self.put_once.add(number)

    @rule(number=NUMBERS)
    def get(self, number: int) -> None:
        self.store.flush()
        where = self.store.where(self.key(number))
        below = self.key(number) in self.store._host or self.key(number) in self.store._disk
        found = self.store.get(self.key(number))
        assert (found is not None) == below
        assert found is None or (number in self.put_once and same(found, entry_of(number)))
        assert where is not None or found is None
        assert number not in self.safe or found is not None

    @rule(numbers=st.lists(NUMBERS, max_size=4))
    def prefetch(self, numbers: list[int]) -> None:
        self.store.prefetch(map(self.key, numbers))

    @rule(number=NUMBERS)
    def pin(self, number: int) -> None:
        self.store.flush()
        self.store.pin(self.key(number))
        self.pins[number] += 1
        if self.key(number) in self.store._disk:
            self.safe.add(number)

    @precondition(lambda self: +self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(+self.pins)))
        self.store.unpin(self.key(number))
        self.pins[number] -= 1
        if not self.pins[number]:
            self.safe.discard(number)

    @rule(number=NUMBERS)
    def use(self, number: int) -> None:
        """As an engine does: the pages that are there, or those of the entry, or new ones, which are then kept."""
        key = self.key(number)
        segment = self.store.resident(key)
        try:
            if segment is None and (entry := self.store.get(key)) is not None:
                segment = self.store.place(key, entry)
            elif segment is None:
                segment = place(self.pool, key.tokens, entry_of(number))
                self.put_once.add(number)
                self.store.keep(key, segment, entry_of(number).seconds)
        except OutOfPagesError:
            return
        self.used.append((number, segment))
        pages = np.unique(np.concatenate([segment.pages for _, segment in self.used]))
        self.used_bytes = len(pages) * self.pool.page_bytes

    @rule()
    def write_back(self) -> None:
        self.store.write_back()
        assert self.store.unwritten == 0

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.used) - 1))
        self.used.pop(at)[1].release()

    @rule(pages=st.integers(0, 60))
    def evict(self, pages: int) -> None:
        before = self.pool.free
        assert self.store.evict(pages) == (self.pool.free >= pages)
        assert self.pool.free >= before

    @rule()
    def restart(self) -> None:
        self.store.flush()
        kept = {path.name for path in self.folder.rglob("*.kv1")}
        self.store.close()
        assert kept <= {path.name for path in self.folder.rglob("*.kv1")} or self.limits["disk"] < 1 << 20
        self.open()
        self.safe.clear()  # pins are the process's own
        self.pins.clear()

    @rule()
    def clear(self) -> None:
        self.store.clear()
        assert all(self.store.where(self.key(number)) is None for number in range(21))
        self.safe.clear()

    @invariant()
    def every_page_is_free_or_held(self) -> None:
        if not hasattr(self, "store"):
            return
        self.pool.check()
        held = np.zeros(len(self.pool), int)
        assert self.store._device is not None
        for segment in [*(own.segment for own in self.store._device._held.values()), *(s for _, s in self.used)]:
            np.add.at(held, segment.pages, 1)
        assert (held == self.pool.counts).all()

    @invariant()
    def what_is_in_use_is_never_overwritten(self) -> None:
        assert all(same(gather(segment, entry_of(n).seconds), entry_of(n)) for n, segment in self.used)

    @invariant()
    def every_tier_is_within_its_limit_and_counts_what_it_has(self) -> None:
        if not hasattr(self, "store"):
            return
        self.store.flush()
        told = self.store.stats()
        assert told.device.bytes <= told.device.limit + self.used_bytes
        for tier in (told.host, told.disk):
            assert tier.bytes <= tier.limit
        assert told.device.damaged == told.host.damaged == told.disk.damaged == 0
        files = list(self.folder.rglob("*.kv1"))
        assert (told.disk.entries, told.disk.bytes) == (len(files), sum(file.stat().st_size for file in files))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        for _, segment in self.used:
            segment.release()
        assert self.pool.free == len(self.pool)
        shutil.rmtree(self.folder)


TestStore = pytest.mark.thorough(Store.TestCase)
TestStore.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_what_was_put_is_found_in_every_tier_and_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    key = key_of(store, 3)
    assert store.get(key) is None
    assert store.put(key, entry_of(3))
    assert store.where(key) == "host"
    store.close()
    store = open_store(tmp_path)
    assert store.where(key) == "disk"
    for tier in ("disk", "host"):
        found = store.get(key)
        assert found is not None
        assert same(found, entry_of(3))
        assert getattr(store.stats(), tier).hits == 1
    pool = PagePool(30, SIZE, DIM)
    store.attach(pool, pool.page_bytes * 30)
    segment = store.place(key, found)
    assert store.where(key) == "device"
    assert same(gather(segment, found.seconds), entry_of(3))


def test_other_tokens_prefixes_and_models_are_other_entries(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put(store.key([1, 2, 3]), entry_of(2))
    assert store.get(store.key([1, 2])) is None
    assert store.get(store.key([1, 2, 4])) is None
    assert store.get(store.key([1, 2, 3], prefix="system")) is None
    other = open_store(tmp_path, fingerprint="another model")
    assert other.get(other.key([1, 2, 3])) is None
    assert store.get(store.key([1, 2, 3])) is not None


def test_a_digest_that_two_chunks_share_is_a_miss(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    key = store.key([1, 2, 3])
    store.put(key, entry_of(2))
    twin = Key(key.digest, "", (1, 2, 4))
    assert store.get(twin) is None
    store.close()
    store = open_store(tmp_path)
    assert store.get(twin) is None
    assert store.get(key) is not None
    assert store.stats().disk.damaged == 0


def test_a_chunk_of_two_documents_is_stored_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for _ in range(2):
        store.put(key_of(store, 5), entry_of(5))
    assert len(list(tmp_path.rglob("*.kv1"))) == 1


def test_a_thousand_requests_that_share_fifty_chunks_hold_the_pages_of_each_once(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path), PagePool(1000, SIZE, DIM)
    store.attach(pool, 1000 * pool.page_bytes)
    for number in range(50):
        store.put(key_of(store, number), entry_of(number))
    once = sum(LAYERS * HEADS * -(-len(tokens_of(number)) // SIZE) for number in range(50))
    requests = []
    for request in range(1000):
        key = key_of(store, request % 50)
        segment = store.resident(key)
        if segment is None:
            found = store.get(key)
            assert found is not None
            segment = store.place(key, found)
        requests.append(segment)
        assert pool.used <= once
    assert pool.used == once
    assert not store.evict(len(pool))  # all are in use
    assert pool.used == once
    for segment in requests:
        segment.release()
    assert pool.used == once
    assert store.evict(len(pool))
    pool.check()
    assert pool.used == 0


def test_pages_that_go_fall_to_host_memory_and_disk(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path), PagePool(100, SIZE, DIM)
    store.attach(pool, 100 * pool.page_bytes)
    key = key_of(store, 6)
    segment = place(pool, key.tokens, entry_of(6))
    assert store.keep(key, segment, entry_of(6).seconds)
    assert not store.keep(key, segment)
    segment.release()
    assert store.get(key) is None
    assert store.evict(100)
    store.flush()
    found = store.get(key)
    assert found is not None
    assert same(found, entry_of(6))
    assert len(list(tmp_path.rglob("*.kv1"))) == 1


def test_pages_that_are_nowhere_else_are_written_when_the_store_is_closed(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path), PagePool(100, SIZE, DIM)
    store.attach(pool, 100 * pool.page_bytes)
    key = key_of(store, 6)
    segment = place(pool, key.tokens, entry_of(6))
    store.keep(key, segment)
    segment.release()
    store.close()
    assert pool.free == 100
    assert open_store(tmp_path).get(key) is not None


def test_pages_that_are_written_back_are_on_the_disk_and_stay(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path), PagePool(100, SIZE, DIM)
    store.attach(pool, 100 * pool.page_bytes)
    for number in (6, 13):
        segment = place(pool, key_of(store, number).tokens, entry_of(number))
        store.keep(key_of(store, number), segment)
        segment.release()
    assert store.unwritten == 2
    store.write_back()
    store.write_back()
    store.flush()
    assert store.unwritten == 0
    assert store.where(key_of(store, 6)) == "device"
    assert len(list(tmp_path.rglob("*.kv1"))) == 2
    found = open_store(tmp_path).get(key_of(store, 13))
    assert found is not None
    assert torch.equal(found.keys, entry_of(13).keys)


def test_what_is_too_much_to_wait_for_being_written_stays_in_pages_until_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longreach.kv.store.store.WAITING", entry_of(0, 6).nbytes)
    store, pool = open_store(tmp_path), PagePool(100, SIZE, DIM)
    store.attach(pool, 100 * pool.page_bytes)
    for number in range(6):
        segment = place(pool, key_of(store, number, 6).tokens, entry_of(number, 6))
        store.keep(key_of(store, number, 6), segment)
        segment.release()
    busy = Event()
    store._writer.submit(busy.wait)
    for _ in range(2):
        store.write_back()
        assert store.unwritten == 5
    busy.set()
    while store.unwritten:
        store.flush()
        store.write_back()
    store.flush()
    assert len(list(tmp_path.rglob("*.kv1"))) == 6
    assert store.stats().dropped == 0


def test_fetching_is_getting_in_another_thread(tmp_path: Path) -> None:
    store = open_store(tmp_path, host=0)
    keys = [key_of(store, number) for number in range(4)]
    for number in (0, 2):
        store.put(keys[number], entry_of(number))
    assert store.find(keys).result() == [keys[0], keys[2]]
    assert store.loading(keys[3]) is None
    loads = [store.fetch(key) for key in keys]
    for number, load in enumerate(loads):
        entry = load.result()
        assert (entry is not None) == (number in (0, 2))
        assert entry is None or same(entry.entry(), entry_of(number))
    store.flush()
    assert store.idle
    one, three = (store.loading(key_of(store, 7, size)) for size in (1, 3))
    assert one is not None
    assert three == pytest.approx(3 * one)
    store.late(keys[0], 1000.0)
    assert store.loading(keys[0]) == pytest.approx(2000.0)
    store.close()
    assert store.fetch(keys[0]).result() is None


def test_a_load_that_nobody_waits_for_any_more_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path, host=0)
    for number in range(2):
        store.put(key_of(store, number), entry_of(number))
    real, began, go_on, read = DiskTier.read, Event(), Event(), []

    def slow(tier: DiskTier, key: Key) -> Encoded | None:
        read.append(key)
        began.set()
        go_on.wait()
        return real(tier, key)

    monkeypatch.setattr(DiskTier, "read", slow)
    loads = [store.fetch(key_of(store, number)) for number in range(2)]
    began.wait()
    assert [load.cancel() for load in loads] == [False, True]
    assert not store.idle
    go_on.set()
    store.flush()
    assert store.idle
    assert read == [key_of(store, 0)]


def test_where_a_request_uses_pages_is_nothing_to_the_next(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path), PagePool(100, SIZE, DIM)
    store.attach(pool, 100 * pool.page_bytes)
    key = key_of(store, 6)
    segment = place(pool, key.tokens, entry_of(6))
    segment.shift = 30
    store.keep(key, segment)
    again = store.resident(key)
    assert again is not None
    assert (again.shift, segment.shift) == (0, 30)


def test_what_a_codec_gave_back_is_not_encoded_again(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path, codec=Halves()), PagePool(100, SIZE, DIM)
    store.attach(pool, 100 * pool.page_bytes)
    key = key_of(store, 6)
    store.put(key, entry_of(6))
    found = store.get(key)
    assert found is not None
    assert torch.equal(found.keys, entry_of(6).keys.round())
    store.place(key, found).release()
    shutil.rmtree(tmp_path)
    store._host.clear()
    assert store.evict(100)
    store.flush()
    assert store.where(key) is None


def test_a_codec_reads_only_what_it_wrote(tmp_path: Path) -> None:
    plain, halves = open_store(tmp_path), open_store(tmp_path, codec=Named("halves(of=1)", Halves()))
    plain.put(key_of(plain, 4), entry_of(4))
    assert halves.get(key_of(halves, 4)) is None
    halves.put(key_of(halves, 4), entry_of(4))
    told = halves.stats()
    assert (told.disk.entries, told.foreign) == (1, 1)
    found = plain.get(key_of(plain, 4))
    assert found is not None
    assert same(found, entry_of(4))


def test_pinned_entries_stay_and_unpinned_ones_go(tmp_path: Path) -> None:
    limit = 2500
    store = open_store(tmp_path, host=0, disk=limit)
    store.pin(key_of(store, 6))
    for number in range(6, 60):
        store.put(key_of(store, number), entry_of(number))
    assert store.get(key_of(store, 6)) is not None
    store.unpin(key_of(store, 6))
    for number in range(60, 120):
        store.put(key_of(store, number), entry_of(number))
    assert store.get(key_of(store, 6)) is None
    with pytest.raises(InputError, match="not pinned"):
        store.unpin(key_of(store, 6))


def test_what_is_wanted_often_outlives_a_restart_and_a_flood(tmp_path: Path) -> None:
    limit = 20_000
    store = open_store(tmp_path, disk=limit)
    for number in range(10):
        store.put(key_of(store, number, 5), entry_of(number, 5))
    for _ in range(8):
        for number in (2, 5):
            store.get(key_of(store, number, 5))
    store.close()
    store = open_store(tmp_path, host=0, disk=limit)
    for number in range(10, 60):
        store.put(key_of(store, number, 5), entry_of(number, 5))
    kept = {number for number in range(10) if store.where(key_of(store, number, 5)) == "disk"}
    assert kept == {2, 5}


def test_what_makes_room_while_it_is_written_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path, host=0, disk=1000)
    real, begun, go_on = files.write, Event(), Event()

    def slow(path: Path, *parts: bytes) -> None:
        if path.name.startswith(key_of(store, 1, 5).digest):
            begun.set()
            assert go_on.wait(60)
        real(path, *parts)

    monkeypatch.setattr(files, "write", slow)
    assert store.offer(key_of(store, 1, 5), entry_of(1, 5))
    assert begun.wait(60)
    assert store.put(key_of(store, 2, 6), entry_of(2, 6))
    go_on.set()
    store.flush()
    told = store.stats().disk
    assert (told.entries, told.evicted) == (1, 1)
    assert told.bytes <= told.limit
    assert store.get(key_of(store, 2, 6)) is not None


def test_prefetched_entries_lie_in_host_memory(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    keys = [key_of(store, number) for number in range(8)]
    for number, key in enumerate(keys):
        store.put(key, entry_of(number))
    store.close()
    store = open_store(tmp_path)
    store.prefetch([*keys, *keys, key_of(store, 99)])
    store.flush()
    assert {store.where(key) for key in keys} == {"host"}
    assert store.stats().disk.hits == 8
    assert store.get(keys[0]) is not None
    assert store.stats().disk.hits == 8


def test_a_writer_that_is_behind_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreach.kv.store.store.WAITING", 100)
    store = open_store(tmp_path)
    with store._lock:  # the writer cannot go on
        told = [store.offer(key_of(store, number, 5), entry_of(number, 5)) for number in range(5)]
    store.flush()
    assert told.count(False) == store.stats().dropped > 0
    assert [store.get(key_of(store, number, 5)) is not None for number in range(5)] == told


def test_what_each_model_takes_is_said_by_its_name(tmp_path: Path) -> None:
    sizes = {}
    for name, label, chunks in (("a", "small", 2), ("b", "large", 5), ("c", "", 1)):
        store = open_store(tmp_path, fingerprint=name, model=label)
        for number in range(chunks):
            store.put(key_of(store, number), entry_of(number))
        sizes[label] = store.stats().disk.bytes
        store.close()
    (tmp_path / "notes.txt").write_text("not ours")
    told = usage(tmp_path)
    assert [(model.model, model.entries, model.bytes) for model in told[:2]] == [
        ("large", 5, sizes["large"]),
        ("small", 2, sizes["small"]),
    ]
    assert told[2].bytes == sizes[""]
    assert usage(tmp_path / "nowhere") == []


def test_an_estimate_is_about_what_is_taken(tmp_path: Path) -> None:
    raw = make("raw")
    store = open_store(tmp_path, codec=Named("raw", raw))
    entries = Counter(30 + number % 5 for number in range(20))
    for number in range(20):
        store.put(key_of(store, number, 30 + number % 5), entry_of(number, 30 + number % 5))
    estimated = disk_bytes(entries, raw, KVShape(LAYERS, HEADS, DIM, DIM, 0, 0, 0), torch.float32)
    assert abs(estimated - store.stats().disk.bytes) < 0.05 * estimated


def test_clearing_leaves_other_models_alone(tmp_path: Path) -> None:
    store, other = open_store(tmp_path), open_store(tmp_path, fingerprint="another")
    for one in (store, other):
        one.put(key_of(one, 1), entry_of(1))
    store.clear()
    assert store.get(key_of(store, 1)) is None
    other.close()
    other = open_store(tmp_path, fingerprint="another")
    assert other.get(key_of(other, 1)) is not None


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_hold_the_entry_and_nothing_after_it(size: int, dtype: torch.dtype) -> None:
    pool = PagePool(40, SIZE, DIM, dtype=dtype, value_dim=3)
    pool.take(3)
    pool.release(np.array([1], np.int32))  # so that the pages are no neighbours
    keys, values = torch.rand(LAYERS, HEADS, size, DIM).to(dtype), torch.rand(LAYERS, HEADS, size, 3).to(dtype)
    segment = place(pool, range(size), Entry(keys, values, first=7, seconds=1.0), source="here")
    found = gather(segment, 1.0)
    assert torch.equal(found.keys, keys)
    assert torch.equal(found.values, values)
    assert (found.first, segment.end, segment.source) == (7, 7 + size, "here")
    positions = pool.positions[pool.index(segment.table[1, 1])].view(-1)
    assert positions.tolist() == [*range(7, 7 + size), *[EMPTY] * (-size % SIZE)]


def test_too_few_pages_take_none(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path), PagePool(3, SIZE, DIM)
    store.attach(pool, 3 * pool.page_bytes)
    with pytest.raises(OutOfPagesError):
        store.place(key_of(store, 1), entry_of(1))
    assert pool.free == 3


def test_a_chunk_larger_than_the_device_limit_is_the_callers_alone(tmp_path: Path) -> None:
    store, pool = open_store(tmp_path), PagePool(30, SIZE, DIM)
    store.attach(pool, pool.page_bytes)
    segment = store.place(key_of(store, 1), entry_of(1))
    assert store.resident(key_of(store, 1)) is None
    segment.release()
    assert pool.free == 30


@pytest.mark.thorough
def test_threads_that_put_and_get_at_once_see_whole_entries(tmp_path: Path) -> None:
    store = open_store(tmp_path, host=1500, disk=4000)
    wrong: list[int] = []

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for number in chance.integers(0, 25, 150).tolist():
            key = key_of(store, number)
            found = store.get(key)
            if found is None:
                (store.put if number % 2 else store.offer)(key, entry_of(number))
            elif not same(found, entry_of(number)):
                wrong.append(number)
            store.prefetch([key_of(store, (number + 1) % 25)])

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    told = store.stats()
    assert not wrong
    assert told.host.bytes <= 1500
    assert told.disk.bytes <= 4000
    assert told.disk.damaged == told.host.damaged == 0


@pytest.mark.parametrize(("host", "disk"), [(-1, 0), (0, -1)])
def test_a_limit_below_zero_is_refused(tmp_path: Path, host: int, disk: int) -> None:
    with pytest.raises(InputError, match="0 or more bytes"):
        open_store(tmp_path, host=host, disk=disk)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_seconds_that_are_none_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="seconds"):
        Entry(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0, seconds)


def test_a_store_can_be_opened_twice_in_one_process(tmp_path: Path) -> None:
    stores: list[KVStore] = [open_store(tmp_path), open_store(tmp_path)]
    stores[0].put(key_of(stores[0], 1), entry_of(1))
    assert stores[1].get(key_of(stores[1], 1)) is not None
