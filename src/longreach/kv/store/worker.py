"""A thread that works off what is put before it, in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread, current_thread


class Worker:
    """Tasks of at most `limit` bytes wait at a time. The thread starts with the first task; a task that fails is told
    to the log and does not stop those behind it."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._waiting: deque[tuple[Callable[[], object], int]] = deque()
        self._bytes = 0
        self._unfinished = 0
        self._closed = False
        self._changed = Condition()
        self._thread: Thread | None = None

    def submit(self, task: Callable[[], object], size: int = 0) -> bool:
        """Have `task` done, which holds `size` bytes meanwhile. False where too many wait already; a single one is
        always taken."""
        with self._changed:
            if not self.takes(size):
                return False
            self._waiting.append((task, size))
            self._bytes += size
            self._unfinished += 1
            if self._thread is None:
                self._thread = Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def takes(self, size: int) -> bool:
        """Whether a task that holds `size` bytes would be taken now."""
        with self._changed:
            return not self._closed and (not self._waiting or self._bytes + size <= self._limit)

    def flush(self) -> None:
        """Wait until all that was submitted is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._unfinished == 0)

    def close(self) -> None:
        """Do what waits, then end; in a task of its own, which may be what lets go of all that it serves, without
        waiting for that."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                if not self._waiting:
                    return
                task, size = self._waiting.popleft()
            try:
                task()
            except Exception:
                logging.getLogger(__name__).exception("a task of the KV store failed")
            finally:
                del task  # what it holds must not outlive it while the next is awaited
                with self._changed:
                    self._bytes -= size
                    self._unfinished -= 1
                    self._changed.notify_all()
