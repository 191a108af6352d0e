"""One thread that computes for everybody.

An engine may be used from several threads, but a step is quickest where the last one was: libraries for tensors keep a
team of helpers for each thread that calls them. So here one thread runs every step and hands out what is ready after
each; those who wait are told through a callback, and compute nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Thread
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from longreach.engine import Completion, Engine, Piece, Stream
from longreach.errors import EndedError

if TYPE_CHECKING:
    from longreach.answer import Answerer
    from longreach.engine.exploration import Exploration, Looks, Reading
    from longreach.engine.paged import PagedEngine
    from longreach.serve.errand import Errand

T = TypeVar("T")
Deliver: TypeAlias = "Callable[[Piece | Completion | Exploration | Exception], None]"
"""Told each piece, and last the completion, the exploration or the error. Called in the engine's thread: returns at
once."""


class Handle:
    """Something under way. `cancel` may be called from any thread, and more than once."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.cancelled = False
        self._wake = wake

    def cancel(self) -> None:
        self.cancelled = True
        self._wake()


class Runs(Protocol):
    """Runs an engine for many callers."""

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done where the engine computes."""
        ...

    def stream(self, begin: Callable[[], Stream], deliver: Deliver) -> Handle:
        """Have the stream that `begin` gives taken to its end."""
        ...

    def explore(self, begin: Callable[[], Reading], through: Looks, deliver: Deliver) -> Handle:
        """Have the prompt of an exploration read."""
        ...

    def answerer(self, answerer: Answerer, errand: Errand) -> Answerer:
        """What finds answers as `answerer` does, for one errand, where the engine computes best."""
        ...

    def close(self) -> None:
        """End all that is under way."""
        ...


class Driver:
    """Runs an engine whose model is in this process."""

    def __init__(self, engine: PagedEngine) -> None:
        self._engine = engine
        self._changed = Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._followed: list[_Followed] = []
        self._closing = False
        self._thread = Thread(target=self._run, name="longreach-engine", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> Future[T]:
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except Exception as error:
                result.set_exception(error)

        if not self._add(run):
            result.set_exception(_closed())
        return result

    def stream(self, begin: Callable[[], Stream], deliver: Deliver) -> Handle:
        return self._follow(begin, deliver)

    def explore(self, begin: Callable[[], Reading], through: Looks, deliver: Deliver) -> Handle:
        return self._follow(begin, deliver, through)

    def answerer(self, answerer: Answerer, errand: Errand) -> Answerer:
        return answerer

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout=60)

    def _follow(self, begin: Callable[[], Stream | Reading], deliver: Deliver, through: Looks | None = None) -> Handle:
        handle = Handle(self._wake)
        if not self._add(lambda: self._followed.append(_Followed(handle, begin, deliver, through))):
            deliver(_closed())
        return handle

    def _add(self, call: Callable[[], None]) -> bool:
        """Have the thread do something; False where it does nothing any more."""
        with self._changed:
            if not self._closing:
                self._calls.append(call)
                self._changed.notify()
            return not self._closing

    def _wake(self) -> None:
        self._add(lambda: None)

    def _run(self) -> None:
        idle = False  # whether there may be something to read that was put off
        while True:
            with self._changed:
                while not (self._calls or self._followed or self._closing or idle):
                    self._changed.wait()
                calls = list(self._calls)
                self._calls.clear()
            for call in calls:
                call()
            if self._closing:
                for followed in self._followed:
                    followed.handle.cancelled = True
            told = [followed.tell() for followed in self._followed]
            self._followed = [followed for followed in self._followed if not followed.done]
            if self._closing and not self._followed:
                return
            if self._followed and not any(told):
                self._step()
            idle = bool(told) or (not self._followed and self._catch_up())

    def _catch_up(self) -> bool:
        try:
            return self._engine.catch_up()
        except Exception:  # nobody waits for it: what is wrong comes up when somebody does
            return False

    def _step(self) -> None:
        try:
            if not self._engine.step():
                self._followed[0].wait()  # nobody can go on: this one is told why
        except Exception as error:
            for followed in self._followed:
                followed.fail(error)


def _closed() -> EndedError:
    return EndedError("the server is ending")


class _Followed:
    """A stream, or a prompt that is read to be explored `through` somebody, and who is told of it."""

    def __init__(
        self, handle: Handle, begin: Callable[[], Stream | Reading], deliver: Deliver, through: Looks | None = None
    ) -> None:
        self.handle = handle
        self.done = False
        self._deliver = deliver
        self._through = through
        self._source: Stream | Reading | None = None
        if not handle.cancelled:
            try:
                self._source = begin()
            except Exception as error:
                self.fail(error)

    def tell(self) -> bool:
        """Hand out what is ready; whether there was something."""
        if self.done:
            return True
        if self.handle.cancelled:
            self.fail(EndedError("the request was cancelled"))
            return True
        told = False
        while not self.done and self._source is not None and self._source.ready:
            self.wait()
            told = True
        return told

    def wait(self) -> None:
        """Hand out the next thing, whatever it takes."""
        try:
            if not isinstance(self._source, Stream):
                assert self._source is not None
                self._end(self._source.finish(self._through))
            elif (piece := next(self._source, None)) is not None:
                self._deliver(piece)
            else:
                self._end(self._source.completion)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End it, and free what it holds."""
        if self._source is not None and not self.done:
            self._source.cancel()
        self._end(error)

    def _end(self, last: Completion | Exploration | Exception) -> None:
        if not self.done:
            self.done, self._source = True, None
            self._deliver(last)


def at_once(work: Callable[[], T]) -> Future[T]:
    """What `work` gives or raises, done by the caller."""
    result: Future[T] = Future()
    try:
        result.set_result(work())
    except Exception as error:
        result.set_exception(error)
    return result


class Threads:
    """Runs an engine that computes elsewhere: a thread for each stream waits for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def call(self, work: Callable[[], T]) -> Future[T]:
        return at_once(work)

    def stream(self, begin: Callable[[], Stream], deliver: Deliver) -> Handle:
        handle = Handle(lambda: None)

        def run() -> None:
            followed = _Followed(handle, begin, deliver)
            while not followed.done:
                if handle.cancelled:
                    followed.tell()
                else:
                    followed.wait()

        Thread(target=run, name="longreach-stream", daemon=True).start()
        return handle

    def explore(self, begin: Callable[[], Reading], through: Looks, deliver: Deliver) -> Handle:
        handle = Handle(lambda: None)
        _Followed(handle, begin, deliver, through)
        return handle

    def answerer(self, answerer: Answerer, errand: Errand) -> Answerer:
        return answerer

    def close(self) -> None:
        pass


def runs_for(engine: Engine) -> Runs:
    """What suits `engine`: its own, if it has some."""
    own: Runs | None = getattr(engine, "runs", None)
    if own is not None:
        return own
    return Driver(engine) if hasattr(engine, "step") else Threads(engine)  # type: ignore[arg-type]
