"""Running what Lance offers as coroutines, in the caller's own thread.

Lance's plain interface hands every call to one background thread and back, which costs a small read more than the read
itself; and only coroutines can wait for several reads at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Loops:
    """A few event loops, each used by one thread at a time."""

    def __init__(self) -> None:
        self._idle: list[asyncio.AbstractEventLoop] = []
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Complete `work` and return what it returns; also from within a running loop, which is held up meanwhile."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run(work)
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(self._run, work).result()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            loop = self._idle.pop() if self._idle else asyncio.new_event_loop()
        try:
            return loop.run_until_complete(work)
        finally:
            with self._lock:
                self._idle.append(loop)

    def close(self) -> None:
        """Close the loops that are idle."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()
