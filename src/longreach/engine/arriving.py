"""Passages on their way into pages, layer by layer, while what needs only the layers before is computed."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from threading import Condition, Event, Lock
from time import perf_counter

import torch

from longreach.kv.pool import PagePool
from longreach.kv.segment import Segment
from longreach.kv.store.key import Key
from longreach.kv.store.open_entry import OpenEntry
from longreach.kv.store.pages import bring, lay_out
from longreach.kv.store.store import KVStore

LAYERS = 5
"""Layers that are decoded together: one by one is slower, all at once leaves nothing to compute meanwhile."""


class NotThereError(Exception):
    """A layer was not there: in time, where that is `late`, else it will not come at all."""

    def __init__(self, late: bool) -> None:
        super().__init__(late)
        self.late = late


class Arriving:
    """Passages that `store` has opened, brought into pages of `pool` by its thread: those in `segments`, which hold
    their pages until the `with` block ends. From then on nothing is written to them any more, unless all is there: who
    holds such pages too lets go of them after that.

    `wait` gives up where for `patience` seconds not a piece of any passage came.
    """

    def __init__(self, store: KVStore, pool: PagePool, patience: float) -> None:
        self.segments: dict[Key, Segment] = {}
        self._store = store
        self._pool = pool
        self._patience = patience
        self._opened: list[tuple[Key, OpenEntry]] = []
        self._layers = 0
        self._seconds: list[float] = []
        self._work: Future[None] | None = None
        self._writing = Lock()  # held while some layers are written
        self._changed = Condition()  # guards all below
        self._pieces = 0
        self._there = 0  # layers
        self._ended = False
        self._cancelled = Event()

    def __enter__(self) -> Arriving:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancelled.set()
        with self._writing:
            pass  # what was being written is written by now, and nothing will be
        if self._work is not None:
            self._work.cancel()  # where it has not begun
            self._work = None
        for segment in self.segments.values():
            segment.release()
        self.segments.clear()

    def add(self, key: Key, opened: OpenEntry) -> None:
        """Pages for one more passage, before `begin`. Raises OutOfPagesError."""
        self._layers, heads, _, _ = opened.kv.shapes[0]
        segment = lay_out(self._pool, (self._layers, heads), key.tokens, opened.first)
        segment.outward = opened.outward
        self.segments[key] = segment
        self._opened.append((key, opened))
        self._seconds.append(0.0)

    def begin(self) -> None:
        """Have all that was added brought by the store's thread."""
        self._work = self._store.bring(self._bring)
        self._work.add_done_callback(self._end)

    def wait(self, layer: int) -> None:
        """Return when `layer` of every passage is in pages. Raises NotThereError."""
        while self._there <= layer:
            with self._changed:
                pieces = self._pieces
                self._changed.wait_for(partial(self._moved, layer, pieces), self._patience)
                if self._there <= layer and (self._ended or self._pieces == pieces):
                    raise NotThereError(late=not self._ended)

    def keep(self) -> None:
        """Wait for all layers, and let the store keep what is whole then. Raises NotThereError."""
        self.wait(self._layers - 1)
        for (key, opened), seconds in zip(self._opened, self._seconds, strict=True):
            self._store.arrived(key, opened, self.segments[key], seconds)

    @torch.inference_mode()
    def _bring(self) -> None:
        """Decode and copy some layers of every passage, then the next, until all are there or nobody wants them."""
        for low in range(0, self._layers, LAYERS):
            end = min(low + LAYERS, self._layers)
            for at, (key, opened) in enumerate(self._opened):
                began = perf_counter()
                decoded = opened.kv.decoded(low, end)
                with self._writing:
                    if self._cancelled.is_set():  # the pages may be others' by now
                        return
                    bring(self.segments[key], decoded, low, end)
                self._seconds[at] += perf_counter() - began
                with self._changed:
                    self._pieces += 1
                    self._changed.notify_all()
            with self._changed:
                self._there = end
                self._changed.notify_all()

    def _moved(self, layer: int, pieces: int) -> bool:
        """Whether `layer` is there, more came than those `pieces`, or no more will."""
        return self._there > layer or self._pieces > pieces or self._ended

    def _end(self, _: Future[None]) -> None:
        """Nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
