"""What one request has under way in the engine, and an engine that works for that request alone."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from queue import SimpleQueue
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from longreach.engine import Completion, Engine, Piece, Prompt, Sampling, Stream
from longreach.errors import EndedError
from longreach.serve.driver import Handle, Runs

if TYPE_CHECKING:
    import torch

    from longreach.engine.exploration import Exploration

T = TypeVar("T")


class Errand:
    """A request of `tenant` that may take `seconds`. `cancel` ends all that it has under way, from any thread."""

    def __init__(self, tenant: str, seconds: float) -> None:
        self.tenant = tenant
        self.began = time.perf_counter()
        self.deadline = self.began + seconds
        self._handles: list[Handle] = []
        self._lock = Lock()
        self._cancelled = False

    @property
    def left(self) -> float:
        """Seconds until it must be done. Raises EndedError where there are none, or nobody waits any more."""
        if self._cancelled:
            raise EndedError("the request was cancelled")
        left = self.deadline - time.perf_counter()
        if left <= 0:
            raise EndedError("the request's time is over")
        return left

    def hold(self, handle: Handle) -> None:
        """Something more is under way."""
        with self._lock:
            self._handles.append(handle)
        if self._cancelled:
            handle.cancel()

    def cancel(self) -> None:
        self._cancelled = True
        with self._lock:
            handles, self._handles = self._handles, []
        for handle in handles:
            handle.cancel()


def until(told: SimpleQueue[Any], last: type[T]) -> Generator[Any, None, T]:
    """What is told, as it comes, and of the kind `last` what ends it. Raises an error that is told."""
    while True:
        item = told.get()
        if isinstance(item, Exception):
            raise item
        if isinstance(item, last):
            return item
        yield item


def start(engine: Engine, prompt: Prompt, sampling: Sampling, errand: Errand) -> Stream:
    """The stream of a request, where `engine` can be told whose it is and when it must end."""
    options: Any = {"timeout": errand.left, "tenant": errand.tenant} if hasattr(engine, "kv_bytes_of") else {}
    return engine.start(prompt, sampling, **options)


class ErrandEngine(Engine):
    """An engine for the reader: what it is asked is done by `runs`, for one errand."""

    def __init__(self, engine: Engine, runs: Runs, errand: Errand) -> None:
        self.model = engine.model
        self.context_length = engine.context_length
        self.parameters = engine.parameters
        self.end_tokens = engine.end_tokens
        self._engine: Any = engine
        self._runs = runs
        self._errand = errand

    def count(self, text: str) -> int:
        return int(self._engine.count(text))

    def tokenize(self, text: str) -> list[int]:
        return list(self._engine.tokenize(text))

    def encode(self, prompt: Prompt) -> list[int]:
        return list(self._engine.encode(prompt))

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._engine.decode(token_ids))

    def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
        told: SimpleQueue[Any] = SimpleQueue()
        handle = self._runs.stream(lambda: start(self._engine, prompt, sampling, self._errand), told.put)
        self._errand.hold(handle)

        def run(cancelled: Event) -> Generator[Piece, None, Completion]:
            done = yield from until(told, Completion)
            if done.finish_reason == "cancelled":
                raise EndedError("the request's time is over")
            return done

        return Stream(run, handle.cancel)

    def explore(self, prompt: Prompt) -> Exploration:
        if not hasattr(self._engine, "begin_exploration"):
            found: Exploration = self._engine.explore(prompt)
            return found
        told: SimpleQueue[Any] = SimpleQueue()

        def begin() -> Any:
            return self._engine.begin_exploration(prompt, timeout=self._errand.left, tenant=self._errand.tenant)

        self._errand.hold(self._runs.explore(begin, self, told.put))
        read: Exploration | Exception = told.get()
        if isinstance(read, Exception):
            raise read
        return read

    def look(self, found: Exploration, tokens: list[int], positions: list[int], sees: torch.Tensor) -> torch.Tensor:
        """See `PagedEngine.look`. Raises EndedError where nobody waits for it any more."""
        _ = self._errand.left
        logits: torch.Tensor = self._runs.call(lambda: self._engine.look(found, tokens, positions, sees)).result()
        return logits
