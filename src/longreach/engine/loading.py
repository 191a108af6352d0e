"""Load or compute: passages that are kept are loaded by another thread, and only waited for while that is the cheaper.

A passage is loaded where that should take less time than reading it anew, by what both took lately. While loads are
under way, the engine reads what must be read anyway. Then it waits for each load at most `PATIENCE` times what reading
that passage would take; with the first that is not there by then it gives up waiting, and reads what is left, from the
end, while loads go on from the beginning. So a tier that has become slow costs half of one passage's reading once, and
is then left alone but for one load at a time that nobody waits for, which tells when it is quick again.

Where nothing is to be read, what is kept need only be found and checked before the next forward begins (`open`): it is
decoded beside that (`longreach.engine.arriving`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

from longreach.kv.store.key import Key
from longreach.kv.store.open_entry import OpenEntry
from longreach.kv.store.rate import Rate
from longreach.kv.store.store import KVStore

PATIENCE = 0.5
"""Of the time of reading a passage anew."""
UNKNOWN = 0.5
"""Seconds to wait where nothing was read yet, so that nobody knows what that takes."""


class Loading:
    """The loads of one prompt, in the order of `keys`. `reading` is what reading takes."""

    def __init__(self, store: KVStore, reading: Rate, keys: Sequence[Key]) -> None:
        self._store = store
        self._reading = reading
        self._left = list(keys)
        self._loads: dict[Key, Future[OpenEntry | None]] = {}
        cheaper = [key for key in keys if self._cheaper(key)]
        self._others = [key for key in keys if key not in cheaper]
        self._wanted = self._present(cheaper)

    def open(self) -> dict[Key, OpenEntry] | None:
        """All of them, found and checked but not decoded yet, where none is to be read; None where one is better read,
        is not there, or not in time: then what was found is decoded by `run`."""
        if len(self._wanted) < len(self._left):
            return None
        opened: dict[Key, OpenEntry] = {}
        loads = {key: self._store.fetch_open(key) for key in self._left}
        self._loads.update(loads)
        for key, load in loads.items():
            if not self._in_time(load, key):
                self._wanted.clear()
                return None
            found = load.result()
            if found is None:
                return None
            self._reading.guess(len(key.tokens), found.seconds)
            opened[key] = found
        return opened

    def give_up(self) -> None:
        """What was opened is not decoded in time: nothing is waited for any more."""
        key = self._longest()
        self._late(key)
        self._wanted.clear()
        self._loads.clear()

    @property
    def patience(self) -> float:
        """Seconds to wait for a sign of what was opened."""
        return self._patience(self._longest())

    def run(self, place: Callable[[Key, OpenEntry], None], read: Callable[[list[Key]], Sequence[Key]]) -> None:
        """Have all of them. `place` is given what was loaded; `read` is given what must be read anew, and says how much
        of that it has read when it returns. What is loaded in the meantime need not be: so what is loaded last is to
        be read first."""
        self._loads.update({key: self._store.fetch(key) for key in self._wanted if key not in self._loads})
        if self._others and self._store.idle:
            self._loads[self._others[0]] = self._store.fetch(self._others[0])  # to see how long it takes now
        try:
            while True:
                for key, entry in self._arrived():
                    self._left.remove(key)
                    place(key, entry)
                rest = [key for key in reversed(self._left) if key not in self._wanted]
                if rest:
                    for key in read(rest):
                        self._left.remove(key)
                        self._leave(key)
                elif self._wanted:
                    self._wait()
                else:
                    return
        finally:
            for key in list(self._loads):
                self._leave(key)

    def _arrived(self) -> Iterator[tuple[Key, OpenEntry]]:
        """What was loaded by now, each once, also of what is not waited for. Waits for nothing."""
        for key in [key for key, load in self._loads.items() if load.done()]:
            load = self._leave(key)
            entry = None if load is None or load.cancelled() else _ready(load.result())
            if entry is not None:
                self._reading.guess(len(key.tokens), entry.seconds)
                yield key, entry

    def _wait(self) -> None:
        """Wait for the first load that is wanted, for as long as that is worth it. If it is not there then, none is
        wanted any more."""
        key = self._wanted[0]
        if not self._in_time(self._loads[key], key):
            self._wanted.clear()

    def _leave(self, key: Key) -> Future[OpenEntry | None] | None:
        """Nobody waits for the load of `key` any more, if there is one."""
        if key in self._wanted:
            self._wanted.remove(key)
        load = self._loads.pop(key, None)
        if load is not None:
            load.cancel()  # no more than that where it has begun
        return load

    def _present(self, keys: Sequence[Key]) -> list[Key]:
        """Which of `keys` are kept; none where it takes too long to say."""
        if not keys:
            return []
        found = self._store.find(keys)
        return found.result() if self._in_time(found, keys[0]) else []

    def _in_time(self, load: Future[Any], key: Key) -> bool:
        """Wait for `load` as long as it is worth it for `key`."""
        done, _ = wait([load], self._patience(key))
        if not done:
            self._late(key)
        return bool(done)

    def _patience(self, key: Key) -> float:
        seconds = self._reading.of(len(key.tokens))
        return UNKNOWN if seconds is None else PATIENCE * seconds

    def _late(self, key: Key) -> None:
        """Let the store know that `key` was not there in time."""
        seconds = self._reading.of(len(key.tokens))
        if seconds is not None:
            self._store.late(key, seconds)

    def _longest(self) -> Key:
        return max(self._left, key=lambda key: len(key.tokens))

    def _cheaper(self, key: Key) -> bool:
        loading, reading = self._store.loading(key), self._reading.of(len(key.tokens))
        return loading is None or reading is None or loading < reading


def _ready(found: OpenEntry | None) -> OpenEntry | None:
    """What was loaded, or opened; None where it cannot be decoded."""
    try:
        return None if found is None else found.ready()
    except Exception:  # such as too little memory
        logging.getLogger(__name__).debug("an entry could not be decoded", exc_info=True)
        return None
