"""The replicas of an engine under Ray Serve, from the front's side: send them tasks, end them. Imported only where Ray
is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from longreach.answer import Draft
from longreach.engine import Completion
from longreach.errors import EndedError
from longreach.serve.driver import Handle
from longreach.serve.refusals import Refusal
from longreach.serve.replicas.task import Facts, Gauges, Task, Told

TRIES = 3
"""How often a task is sent, where replicas are lost before anything was told of it."""
GRACE = 15.0
"""Seconds beside a task's own until nobody waits any more for what its replica says."""
GAUGE_SECONDS = 5.0
SAME = frozenset({"kv_page_bytes"})
"""Figures that are the same of all replicas; of others, the sum is told."""


class Replicas:
    """Sends tasks through a deployment's `handle`, whose router chooses where to. `ended` is called at the end. For any
    thread: all waiting is done in one of its own."""

    def __init__(self, handle: Any, ended: Callable[[], None]) -> None:
        self._handle = handle
        self._ended = ended
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="longreach-replicas", daemon=True)
        self._thread.start()

    def facts(self) -> Facts:
        """What the replicas have in common."""
        found: Facts = self._handle.facts.remote().result()
        return found

    def each(self) -> list[Gauges]:
        """Figures of each replica; of those that do not say theirs, none."""
        try:
            told = self._handle.broadcast("gauges").results(timeout_s=GAUGE_SECONDS, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError):
            return []
        return [gauges for gauges in told if isinstance(gauges, list)]

    def gauges(self) -> Gauges:
        """Figures of all replicas together."""
        answered = self.each()
        found: Gauges = [("replicas", "Replicas of the engine that answer", "", {"": float(len(answered))})]
        for name in dict.fromkeys(gauge[0] for gauges in answered for gauge in gauges):
            alike = [gauge for gauges in answered for gauge in gauges if gauge[0] == name]
            total = {
                value: alike[0][3][value] if name in SAME else sum(gauge[3].get(value, 0.0) for gauge in alike)
                for value in alike[0][3]
            }
            found.append((name, alike[0][1], alike[0][2], total))
        return found

    def send(self, task: Task, deliver: Callable[[Told], None]) -> Handle:
        """Have `task` done; `deliver` is called in this object's thread and returns at once."""
        begun: list[asyncio.Task[None]] = []

        def begin() -> None:
            if handle.cancelled:
                deliver(_cancelled())
                return
            begun.append(self._loop.create_task(self._do(task, deliver)))
            self._tasks.add(begun[0])
            begun[0].add_done_callback(ended)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if done.cancelled():  # maybe before it had begun
                deliver(_cancelled())

        def cancel() -> None:
            if begun:
                begun[0].cancel()

        def wake() -> None:
            self._call(cancel)

        handle = Handle(wake)
        if not self._call(begin):
            deliver(EndedError("the server is ending"))
        return handle

    def close(self) -> None:
        """End the tasks, and the replicas."""
        if self._thread.is_alive():
            try:
                asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(timeout=30)
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(timeout=30)
                self._loop.close()
            finally:
                self._ended()

    def _call(self, work: Callable[[], None]) -> bool:
        """Have something done in this object's thread; False where it has ended."""
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            return False
        return True

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, task: Task, deliver: Callable[[Told], None]) -> None:
        until = time.perf_counter() + task.seconds
        try:
            async with asyncio.timeout(task.seconds + GRACE):
                for last in (*[False] * (TRIES - 1), True):
                    left = until - time.perf_counter()
                    if left <= 0:
                        raise EndedError("the request's time is over")
                    told = await self._try(Task(task.work, task.wanted, task.tenant, left), deliver, last)
                    if told:
                        return
        except TimeoutError:
            deliver(EndedError("the request's time is over"))
        except Exception as error:
            deliver(error)

    async def _try(self, task: Task, deliver: Callable[[Told], None], last: bool) -> bool:
        """Have `task` done by one replica. False where that was lost and the task can be done by another."""
        told = ended = False
        stream = self._handle.options(stream=True).work.remote(task)
        try:
            async for items in stream:
                for item in items:
                    told = True
                    ended = ended or isinstance(item, Completion | Draft | Exception)
                    deliver(item)
        except RayTaskError as error:
            if not ended:
                raise RuntimeError(f"a replica failed: {type(error.cause).__name__}") from None
        except (RayError, RayServeException):
            if not told and not last:
                return False
        finally:
            if not ended:
                stream.cancel()
        if ended:
            return True
        raise Refusal(503, "the replica that was answering is gone: ask again", code="replica_lost", wait=1)


def _cancelled() -> EndedError:
    return EndedError("the request was cancelled")
