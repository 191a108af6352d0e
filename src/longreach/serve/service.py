"""The server's parts, put together: engine, libraries, keys, uploads; and whether it is ready."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from logging import Logger
from typing import Any, Literal, TypeVar

from longreach.config import Settings
from longreach.engine import Engine
from longreach.errors import LongreachError
from longreach.library import Library
from longreach.library.embed import Embedder
from longreach.reader import Reader
from longreach.serve.access import Access
from longreach.serve.driver import Runs, runs_for
from longreach.serve.errand import Errand, ErrandEngine
from longreach.serve.gate import Gate
from longreach.serve.gauges import engine_gauges
from longreach.serve.indexing import Indexer
from longreach.serve.journal import Journal
from longreach.serve.keys import Key, KeyStore
from longreach.serve.metrics import Metrics
from longreach.serve.options import ServeOptions
from longreach.serve.pace import Pace
from longreach.serve.rates import Rates
from longreach.serve.refusals import Refusal
from longreach.serve.shelf import Shelf
from longreach.serve.warming import warm_up
from longreach.types import Timing, Usage

T = TypeVar("T")
State = Literal["starting", "ready", "draining", "failed"]


class Service:
    """One server. `make_engine`, `open_library(path, create)` and `load_encoder` are called when they are needed, in
    threads."""

    def __init__(
        self,
        options: ServeOptions,
        settings: Settings,
        log: Logger,
        *,
        make_engine: Callable[[], Engine],
        open_library: Callable[..., Library],
        load_encoder: Callable[[], Embedder],
    ) -> None:
        self.options = options
        self.settings = settings
        self.log = log
        self.state: State = "starting"
        self.failure: Exception | None = None
        self.gate = Gate(options.running, options.queue)
        self.pace = Pace()
        self.metrics = Metrics(self._gauges)
        self.access = Access(options, KeyStore(options.folder), Rates())
        self.shelf = Shelf(options, open_library)
        self.journal = Journal(options.folder)
        self.indexer = Indexer(self.shelf, self.journal, options, log)
        self._make_engine = make_engine
        self._load_encoder = load_encoder
        self._loading = threading.Lock()
        self._ending = threading.Lock()
        self._closed = False
        self._engine: Engine | None = None
        self._runs: Runs | None = None
        self._searching = ThreadPoolExecutor(2, "longreach-search")
        self._writing = ThreadPoolExecutor(8, "longreach-writing")
        self._reading = ThreadPoolExecutor(options.running, "longreach-reading")

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "requests wait at the gate until there is an engine"
        return self._engine

    @property
    def runs(self) -> Runs:
        assert self._runs is not None
        return self._runs

    @cached_property
    def encoder(self) -> Embedder:
        """The encoder of the settings."""
        with self._loading:
            return self._load_encoder()

    async def start(self, ended: Callable[[], None] = lambda: None) -> None:
        """Load the engine, while requests are told to wait; `ended` is called where that cannot be."""
        self.shelf.sweep()
        self.indexer.start()
        try:
            await asyncio.to_thread(self._load)
        except Exception as error:
            self.state, self.failure = "failed", error
            self.log.error("the model cannot be loaded", exc_info=not isinstance(error, LongreachError))
            ended()
            return
        if self.state == "starting":
            self.state = "ready"
            self.gate.open()
            self.log.info("ready", extra={"fields": {"model": self.engine.model}})

    async def drain(self) -> None:
        """Let nobody in any more, and wait until those who are in have gone, for `drain_seconds`."""
        self.state = "draining"
        self.gate.close(Refusal(503, "the server is ending", code="draining", wait=10))
        try:
            async with asyncio.timeout(self.options.drain_seconds):
                await self.gate.empty()
        except TimeoutError:
            self.log.warning("requests are cut off", extra={"fields": {"requests": self.gate.working}})

    def close(self) -> None:
        """End all that runs, and what is being loaded, once it is."""
        self.indexer.stop()
        with self._ending:
            self._closed = True
        if self._runs is not None:
            self._runs.close()
        for pool in (self._searching, self._writing, self._reading):
            pool.shutdown(wait=False, cancel_futures=True)
        self.shelf.close()
        self.journal.close()

    async def search_in(self, work: Callable[[], T]) -> T:
        """Do what needs an encoder or a library's tables in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._searching, work)

    async def write_in(self, work: Callable[[], T]) -> T:
        """Do what changes a library, and may wait for whoever writes to it, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    async def read_in(self, work: Callable[[], T]) -> T:
        """Do what waits for the engine in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    def errand(self, key: Key, seconds: float | None) -> Errand:
        """What a request may take, and whose it is."""
        most = self.options.request_seconds
        return Errand(key.tenant, most if seconds is None else min(most, seconds))

    def reader(self, library: Library, errand: Errand, **chosen: Any) -> Reader:
        """A reader with the methods of the settings, where `chosen` does not name others."""
        reader = Reader.configured(library, ErrandEngine(self.engine, self.runs, errand), self.settings, **chosen)
        reader.answerer = self.runs.answerer(reader.answerer, errand)
        return reader

    def learn(self, timing: Timing, usage: Usage, *, began: float = 0.0) -> None:
        """Learn from an answer; `began` seconds of its time to the first token were not the engine's."""
        self.metrics.read(timing, usage)
        self.pace.learn(usage.prompt_tokens - usage.reused_tokens, timing.ttft - began)

    def _load(self) -> None:
        engine = self._make_engine()
        runs = runs_for(engine)
        if (done := warm_up(engine, runs)) is not None:
            self.pace.learn(done.usage.prompt_tokens, done.timing.ttft)
        with self._ending:
            self._engine, self._runs = engine, runs
            late = self._closed
        if late:
            runs.close()

    def _gauges(self) -> Iterator[tuple[str, str, str, dict[str, float]]]:
        yield "ready", "1 where requests are let in", "", {"": float(self.state == "ready")}
        yield "requests_running", "Requests that are worked on", "", {"": self.gate.working}
        yield "requests_waiting", "Requests that wait for their turn", "", {"": self.gate.waiting}
        yield "uploads_unfinished", "Uploads that are not in their library yet", "", {"": self.journal.unfinished()}
        if self._engine is not None:
            all_of_them: Any = getattr(self._engine, "gauges", None)
            yield from all_of_them() if all_of_them else engine_gauges(self._engine, self.runs)
