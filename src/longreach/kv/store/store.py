"""The KV of chunks, kept between questions: found by what was read, wherever it lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Literal, TypeVar

from longreach.errors import InputError
from longreach.kv.store.disk import DiskTier
from longreach.kv.store.entry import Codec, Entry
from longreach.kv.store.format import Encoded, Label
from longreach.kv.store.host import HostTier
from longreach.kv.store.key import Key
from longreach.kv.store.loader import Loader
from longreach.kv.store.open_entry import OpenEntry, Tier, decode_entry, open_entry, ready_entry
from longreach.kv.store.rate import Rate
from longreach.kv.store.stats import StoreStats, TierStats
from longreach.kv.store.worker import Worker

if TYPE_CHECKING:
    from longreach.kv.pool import PagePool
    from longreach.kv.segment import Segment
    from longreach.kv.store.device import DeviceTier, Resident

T = TypeVar("T")

WAITING = 512 << 20
"""Bytes of tensors that may wait to be encoded and written."""


class KVStore:
    """Entries of one model in one codec, in three tiers with a limit in bytes each: pages of the engine's pool (after
    `attach`), host memory, and files in `folder`, which other models and engines may share.

    What is put is written through to the disk, and what is wanted comes up; what a tier lets go of is kept by the one
    below. Nothing that goes wrong on the disk is an error: it is a miss. All methods may be called from any thread, but
    for those that speak of segments (`attach`, `resident`, `place`, `keep`, `evict`, `clear`, `close`): they belong to
    the thread that runs the engine.
    """

    def __init__(self, disk: DiskTier, codec: Codec, host_bytes: int) -> None:
        self._codec = codec
        self._disk = disk
        self._host = HostTier(host_bytes)
        self._device: DeviceTier | None = None
        self._pins: Counter[Key] = Counter()
        self._lock = RLock()
        self._writer = Worker("longreach-kv-writer", WAITING)
        self._loader = Loader()
        self._dropped = 0
        self._unwritten: dict[Key, None] = {}  # what `keep` was given and no other tier has, in order
        self._rates: dict[Tier, Rate] = {"host": Rate(), "disk": Rate()}

    @classmethod
    def open(
        cls, folder: str | Path, *, fingerprint: str, codec: Codec, host_bytes: int, disk_bytes: int, model: str = ""
    ) -> KVStore:
        """The store in `folder`, which is made when something is put. `model` is its name for people. Raises InputError
        for a folder that is a file, and for a limit below zero."""
        if host_bytes < 0 or disk_bytes < 0:
            raise InputError(f"host_bytes={host_bytes}, disk_bytes={disk_bytes}: a limit is 0 or more bytes")
        folder = Path(folder).expanduser().absolute()
        return cls(DiskTier(folder, Label(fingerprint, codec.spec), disk_bytes, model), codec, host_bytes)

    def key(self, tokens: Sequence[int], prefix: str = "") -> Key:
        """The key of `tokens`, read under the prefix class `prefix` ("": alone)."""
        return Key.of(self._disk.label.fingerprint, tokens, prefix)

    def where(self, key: Key) -> Literal["device", "host", "disk"] | None:
        """The highest tier that holds an entry. A damaged one is not found out here."""
        with self._lock:
            if self._device is not None and key in self._device:
                return "device"
            if key in self._host:
                return "host"
        return "disk" if key in self._disk else None

    def get(self, key: Key) -> Entry | None:
        """The KV of a chunk, from host memory or disk, or None. From the disk it comes into host memory too."""
        return self._found(key, decode_entry)

    def fetch(self, key: Key) -> Future[OpenEntry | None]:
        """As `get`, by another thread, in the order of asking; decoded as far as `place` does not do that better. What
        was not begun may be cancelled."""
        return self._loader.ask(partial(self._timed, key), None)

    def fetch_open(self, key: Key) -> Future[OpenEntry | None]:
        """As `fetch`, but that nothing is decoded yet."""
        return self._loader.ask(partial(self._opened, key), None)

    def bring(self, run: Callable[[], None]) -> Future[None]:
        """Have what was opened decoded and put into pages by the same thread, as `run` does; done at once, without
        that, where the store is closed."""
        return self._loader.ask(run, None)

    def find(self, keys: Sequence[Key]) -> Future[list[Key]]:
        """Which of `keys` host memory or the disk has, by the same thread."""
        return self._loader.ask(lambda: [key for key in keys if self._tier(key) == "host" or key in self._disk], [])

    @property
    def idle(self) -> bool:
        """Whether nothing is being fetched."""
        return self._loader.idle

    def loading(self, key: Key) -> float | None:
        """Seconds that `fetch` should take, by what it took lately from the tier that has the entry, if one has; None
        where that is not known. Does not look at the disk."""
        return self._rates[self._tier(key)].of(len(key.tokens))

    def late(self, key: Key, seconds: float) -> None:
        """Note that an entry was not fetched in a time in which `seconds` would have been spent otherwise."""
        self._rates[self._tier(key)].above(len(key.tokens), 2 * seconds)

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep the KV of a chunk; on the disk when this returns, unless the disk does not take it. Whether host memory
        or disk has it. What is there already is not written again."""
        if key in self._disk:
            return True
        with self._lock:
            known = self._host.look(key)
        if known is None:
            assert entry.keys.shape[2] == entry.values.shape[2] == len(key.tokens)
            payload = self._codec.encode(entry.keys, entry.values, entry.first)
            noted = b"" if entry.outward is None else entry.outward.numpy().astype("<f4").tobytes()
            known = Encoded(payload, entry.first, entry.seconds, noted)
        written = self._disk.write(key, known, self._hits(key), self._pinned())
        return self._rise(key, known) or written

    def offer(self, key: Key, entry: Entry) -> bool:
        """As `put`, by another thread, which owns the tensors from now on. False, and it is dropped, where too much is
        waiting already."""
        taken = self._writer.submit(partial(self.put, key, entry), entry.nbytes)
        with self._lock:
            self._dropped += not taken
        return taken

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Have entries loaded from the disk into host memory meanwhile."""
        for key in keys:
            with self._lock:
                known = key in self._host
            if not known:
                self._loader.ahead(key, partial(self._load, key))

    def pin(self, key: Key) -> None:
        """Let no tier of this store let go of an entry, until it is unpinned as often; it need not be there yet."""
        with self._lock:
            self._pins[key] += 1

    def unpin(self, key: Key) -> None:
        """Take back a `pin`. Raises InputError where there was none."""
        with self._lock:
            if not self._pins[key]:
                raise InputError("an entry was unpinned that was not pinned")
            self._pins[key] -= 1
            self._pins += Counter()  # without those that came to nothing

    def attach(self, pool: PagePool, device_bytes: int) -> None:
        """Keep entries in pages of `pool` too, at most `device_bytes` of them."""
        from longreach.kv.store.device import DeviceTier

        assert self._device is None, "the store has a pool already"
        self._device = DeviceTier(pool, device_bytes, partial(self._fall, self.offer))

    def resident(self, key: Key) -> Segment | None:
        """The pages of a chunk, held once more for the caller; None where they are not on the device."""
        assert self._device is not None
        with self._lock:
            segment = self._device.get(key)
            if segment is not None:
                self._touch(key)
            return segment

    def place(self, key: Key, entry: Entry | OpenEntry, source: object = None) -> Segment:
        """Bring what `get` or `fetch` gave into pages, where the store keeps it too if it may. The segment is the
        caller's to release. Raises OutOfPagesError where the pool has too few."""
        from longreach.kv.store.device import Resident
        from longreach.kv.store.pages import place

        assert self._device is not None
        segment = self.resident(key) if key in self._device else None
        if segment is None:
            segment = place(self._device.pool, key.tokens, entry, source)
            self._hold(key, Resident(segment, entry.seconds, original=False))
        return segment

    def arrived(self, key: Key, opened: OpenEntry, segment: Segment, decoding: float) -> None:
        """Keep the pages into which all layers of what `fetch_open` gave were brought, if it may; `decoding` took so
        many seconds."""
        from longreach.kv.store.device import Resident

        self._rates[opened.tier].note(len(key.tokens), opened.took + decoding)
        self._hold(key, Resident(segment, opened.seconds, original=False))

    def keep(self, key: Key, segment: Segment, seconds: float = 0.0) -> bool:
        """Keep pages that the model wrote: a sealed, whole segment with the tokens of `key`. False where the chunk is
        there already or does not fit. It falls to host memory and disk when it goes, or by `write_back`."""
        from longreach.kv.store.device import Resident

        with self._lock:
            kept = self._hold(key, Resident(segment, seconds, original=True))
            if kept:
                self._unwritten[key] = None
            return kept

    def beside(self, name: str) -> Path | None:
        """Where a file of this `name` lies beside the entries of the model; None where nothing is kept on the disk."""
        return self._disk.home / name if self._disk.limit else None

    @property
    def unwritten(self) -> int:
        """How many entries lie in pages alone, as far as this store knows."""
        return len(self._unwritten)

    def write_back(self) -> None:
        """Have another thread encode and write what lies in pages alone: as much as may wait for it, the rest when this
        is called again."""
        assert self._device is not None
        with self._lock:
            for key in list(self._unwritten):
                resident = self._device.look(key)
                if resident is not None and not self._writer.takes(_bytes_of(resident.segment)):
                    return
                self._unwritten.pop(key)
                if resident is not None:
                    self._fall(self.offer, key, resident)

    def evict(self, pages: int) -> bool:
        """Let go of pages that no request uses until `pages` are free in the pool. False where that cannot be."""
        assert self._device is not None
        with self._lock:
            return self._device.evict(pages, self._pinned())

    def stats(self) -> StoreStats:
        """What is where, and what happened since the store was opened. Looks through the folder."""
        disk, foreign, foreign_bytes = self._disk.stats()
        with self._lock:
            device = self._device.stats() if self._device is not None else TierStats(0, 0, 0, 0, 0, 0, 0)
            return StoreStats(
                device, self._host.stats(), disk, foreign, foreign_bytes, self._disk.unwritten, self._dropped
            )

    def flush(self) -> None:
        """Wait until all that was offered is kept, and all that was to be prefetched is loaded."""
        self._loader.flush()
        self._writer.flush()

    def clear(self) -> None:
        """Let go of every entry of this model, in every tier and codec, pinned or not; other models' stay."""
        self.flush()
        with self._lock:
            self._unwritten.clear()
            if self._device is not None:
                self._device.clear()
            self._host.clear()
        self._disk.clear()

    def close(self) -> None:
        """Write what waits, what is in pages alone, and how often entries were wanted; let go of pages and memory."""
        self._loader.close()
        if self._device is not None:
            with self._lock:
                self._device.drop(partial(self._fall, self.put))  # however much it is
        self._writer.close()
        self._host.clear()
        self._disk.settle()

    def _found(self, key: Key, read: Callable[[Codec, Key, Encoded], T | None]) -> T | None:
        """What `read` makes of an entry, where it can."""
        self._loader.overtake(key)
        with self._lock:
            found = self._host.get(key)
            if found is not None:
                self._touch(key)
        if found is not None:
            entry = read(self._codec, key, found)
            if entry is not None:
                return entry
            with self._lock:
                self._host.discard(key)
                self._host.counts.damaged += 1
        found = self._disk.read(key)
        if found is None:
            return None
        entry = read(self._codec, key, found)
        if entry is None:
            self._disk.discard(key)
            return None
        self._disk.touch(key)
        self._rise(key, found)
        return entry

    def _timed(self, key: Key) -> OpenEntry | None:
        """See `fetch`; how long it took is noted."""
        ready = self._opened(key, ready_entry)
        if ready is not None:
            self._rates[ready.tier].note(len(key.tokens), ready.took)
        return ready

    def _opened(
        self, key: Key, read: Callable[[Codec, Key, Encoded], OpenEntry | None] = open_entry
    ) -> OpenEntry | None:
        """An entry with what it took."""
        tier, began = self._tier(key), perf_counter()
        opened = self._found(key, read)
        return None if opened is None else replace(opened, tier=tier, took=perf_counter() - began)

    def _hold(self, key: Key, resident: Resident) -> bool:
        """Keep pages on the device; False where the chunk is there already or does not fit."""
        assert self._device is not None
        with self._lock:
            return self._device.add(key, resident, self._hits(key), self._pinned())

    def _tier(self, key: Key) -> Tier:
        with self._lock:
            return "host" if key in self._host else "disk"

    def _load(self, key: Key) -> None:
        """From the disk into host memory."""
        found = self._disk.read(key)
        if found is not None:
            self._rise(key, found)

    def _rise(self, key: Key, found: Encoded) -> bool:
        """Keep an entry in host memory; what makes room for it stays on the disk. False where it does not fit."""
        hits = self._hits(key)
        with self._lock:
            gone = self._host.add(key, found, hits, self._pinned())
        for other, entry, wanted in gone or []:
            if other not in self._disk:
                write = partial(self._disk.write, other, entry, wanted, self._pinned())
                self._writer.submit(write, len(entry.payload))
        return gone is not None

    def _fall(self, keep: Callable[[Key, Entry], bool], key: Key, resident: Resident) -> None:
        """Pages that go and are nowhere else: what a codec gave back once is not encoded again, it would lose more."""
        from longreach.kv.store.pages import gather

        self._unwritten.pop(key, None)
        if resident.original and key not in self._host and key not in self._disk:
            keep(key, gather(resident.segment, resident.seconds))

    def _touch(self, key: Key) -> None:
        """An entry was wanted: every tier that has it knows."""
        if self._device is not None:
            self._device.touch(key)
        self._host.touch(key)
        self._disk.touch(key)

    def _hits(self, key: Key) -> int:
        """How often an entry was wanted, as far as host memory and disk know."""
        return max(self._host.hits(key), self._disk.hits(key))

    def _pinned(self) -> set[Key]:
        with self._lock:
            return set(self._pins)


def _bytes_of(segment: Segment) -> int:
    """What the keys and values of a segment take as numbers, outside of pages."""
    pool, streams = segment.pool, segment.entries.size
    return len(segment) * streams * (pool.head_dim + pool.value_dim) * pool.dtype.itemsize
