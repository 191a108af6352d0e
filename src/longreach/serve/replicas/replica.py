"""One engine, reached through Ray Serve: what runs in a replica's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from longreach.answer import Draft
from longreach.engine import Completion, Engine
from longreach.errors import LongreachError, UnsupportedError
from longreach.serve.driver import Runs, runs_for
from longreach.serve.errand import Errand, ErrandEngine, start
from longreach.serve.gauges import engine_gauges
from longreach.serve.replicas.task import Answer, Facts, Gauges, Pages, Task, Told, Write
from longreach.serve.warming import warm_up


class EngineReplica:
    """Does tasks with the engine that `make_engine` loads, which is this replica's alone."""

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        engine: Any = make_engine()
        if not hasattr(engine, "texts"):
            raise UnsupportedError(f"{engine.model} computes elsewhere: there is nothing to replicate")
        self._engine = engine
        self._runs: Runs = runs_for(engine)
        self._tasks = 0
        warm_up(engine, self._runs)

    def facts(self) -> Facts:
        """What the front has to know of the engine."""
        engine = self._engine
        return Facts(
            engine.model,
            engine.context_length,
            engine.parameters,
            engine.end_tokens,
            engine.texts,
            engine.keeps_passages,
            Pages(engine.pool.page_size, engine.pool.page_bytes),
            engine.kv_bytes_of(1),
        )

    def gauges(self) -> Gauges:
        """Figures of this engine."""
        return [
            ("tasks", "Tasks that replicas have begun", "", {"": float(self._tasks)}),
            *engine_gauges(self._engine, self._runs),
        ]

    def record_routing_stats(self) -> dict[str, int]:
        """How many tokens can be kept here for other prompts; asked for by Ray Serve."""
        pool, passages = self._engine.pool, self._engine.passages
        if passages is None:
            room = len(pool) * pool.page_bytes
        else:
            stats = passages.store.stats()  # its share of the pool, and what lies below
            room = stats.device.limit + stats.host.limit + stats.disk.limit
        return {"kv_tokens": room // self._engine.kv_bytes_of(1) * pool.page_size}

    async def work(self, task: Task) -> AsyncIterator[list[Told]]:
        """What comes of a task: lists of what was there at once, the end of it last. Whoever goes away ends it."""
        self._tasks += 1
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Told] = asyncio.Queue()
        errand = Errand(task.tenant, task.seconds)

        def tell(item: Any) -> None:
            loop.call_soon_threadsafe(told.put_nowait, item)

        try:
            self._begin(task, errand, tell)
            ended = False
            while not ended:
                items = [await told.get()]
                while not told.empty():
                    items.append(told.get_nowait())
                ended = isinstance(items[-1], Completion | Draft | Exception)
                yield [_sendable(item) for item in items]
        finally:
            errand.cancel()

    def _begin(self, task: Task, errand: Errand, tell: Callable[[Told], None]) -> None:
        if isinstance(task.work, Write):
            begin = partial(start, self._engine, task.work.prompt, task.work.sampling, errand)
            errand.hold(self._runs.stream(begin, tell))  # type: ignore[arg-type]  # no exploration is begun
            return
        engine = ErrandEngine(self._engine, self._runs, errand)
        threading.Thread(target=_answer, args=(task.work, engine, tell), name="longreach-answer", daemon=True).start()


def _answer(work: Answer, engine: Engine, tell: Callable[[Told], None]) -> None:
    pieces = work.answerer.answer(work.question, work.passages, engine)
    try:
        while True:
            tell(next(pieces))
    except StopIteration as end:
        tell(end.value)
    except Exception as error:
        tell(error)


def _sendable(item: Told) -> Told:
    """`item`; of an error that is not raised on purpose no more than its kind, since its message may quote a
    document."""
    if isinstance(item, Exception) and not isinstance(item, LongreachError):
        return RuntimeError(f"a replica failed: {type(item).__name__}")
    return item
