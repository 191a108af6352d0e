"""What a store finds by a thread of its own, in order: for who waits for it, and ahead of who will want it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Event, Lock
from typing import TypeVar

from longreach.kv.store.key import Key
from longreach.kv.store.worker import Worker

T = TypeVar("T")


class Loader:
    """All methods may be called from any thread."""

    def __init__(self) -> None:
        self._worker = Worker("longreach-kv-loader", 0)  # what waits holds nothing
        self._lock = Lock()  # guards all below
        self._asked = 0
        self._queued: set[Key] = set()
        self._loading: dict[Key, Event] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing was asked for that is not found yet."""
        return self._asked == 0

    def ask(self, find: Callable[[], T], nothing: T) -> Future[T]:
        """What `find` gives; `nothing` where it fails, or the loader is closed. What was not begun may be cancelled."""
        load: Future[T] = Future()

        def run() -> None:
            try:
                if load.set_running_or_notify_cancel():
                    load.set_result(find())
            except Exception:  # such as too little memory to decode: whoever waits reads what is missing
                logging.getLogger(__name__).debug("an entry could not be loaded", exc_info=True)
                load.set_result(nothing)
            finally:
                self._count(-1)

        self._count(1)
        if not self._worker.submit(run):
            self._count(-1)
            load.set_result(nothing)
        return load

    def ahead(self, key: Key, load: Callable[[], object]) -> None:
        """Have `load` done for `key`, unless it is under way or `overtake` comes first."""
        with self._lock:
            if key in self._queued or key in self._loading:
                return
            self._queued.add(key)
        self._worker.submit(partial(self._load, key, load))

    def overtake(self, key: Key) -> None:
        """What `ahead` was to do for `key` need not be begun any more; where it was, wait for its end."""
        with self._lock:
            self._queued.discard(key)
            loading = self._loading.get(key)
        if loading is not None:
            loading.wait()

    def flush(self) -> None:
        """Wait until all is done."""
        self._worker.flush()

    def close(self) -> None:
        """Do what waits, then end."""
        self._worker.close()

    def _load(self, key: Key, load: Callable[[], object]) -> None:
        with self._lock:
            if key not in self._queued:
                return
            self._queued.discard(key)
            self._loading[key] = done = Event()
        try:
            load()
        finally:
            with self._lock:
                del self._loading[key]
            done.set()

    def _count(self, asked: int) -> None:
        with self._lock:
            self._asked += asked
