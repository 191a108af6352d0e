"""What stands for all replicas where one engine is expected."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from longreach.answer import Answerer, Draft
from longreach.engine import Completion, Engine, Piece, Prompt, Sampling, Stream
from longreach.engine.text_engine import TextEngine
from longreach.errors import UnsupportedError
from longreach.serve.driver import Deliver, Handle, at_once
from longreach.serve.errand import Errand, until
from longreach.serve.replicas.task import Answer, Task, Write
from longreach.serve.replicas.wanted import wanted
from longreach.types import Passage

if TYPE_CHECKING:
    from longreach.engine.exploration import Looks, Reading
    from longreach.serve.replicas.replicas import Replicas

T = TypeVar("T")
SECONDS = 600.0
"""How long an answer may take where nobody says."""


class ReplicatedEngine(TextEngine):
    """Knows the model's tokens and has everything else done by `replicas`. `pool` tells the sizes of pages, of each of
    them; `runs` is what a server works with."""

    def __init__(self, replicas: Replicas) -> None:
        facts = replicas.facts()
        self.model = facts.model
        self.context_length = facts.context_length
        self.parameters = facts.parameters
        self.end_tokens = facts.end_tokens
        self.pool = facts.pages
        self.runs = ReplicaRuns(self, replicas)
        self._facts = facts
        self.texts = facts.texts
        self._replicas = replicas

    @property
    def apart(self) -> bool:
        return self._facts.apart

    def kv_bytes_of(self, tokens: int) -> int:
        """What the keys and values of so many tokens take."""
        return -(-tokens // self.pool.page_size) * self._facts.least_bytes

    def gauges(self) -> list[tuple[str, str, str, dict[str, float]]]:
        """Figures of all replicas together."""
        return self._replicas.gauges()

    def start(
        self, prompt: Prompt, sampling: Sampling, *, timeout: float | None = None, tenant: str = ""
    ) -> WriteStream:
        """See `PagedEngine.start`; what is wrong with a prompt is told with its first piece."""
        parts = self.parts(prompt)
        asked = wanted(parts, tenant, apart=self._facts.apart)
        task = Task(Write(tuple(parts), sampling), asked, tenant, SECONDS if timeout is None else timeout)
        return WriteStream(task, self._replicas)

    def answer(
        self, answerer: Answerer, question: str, passages: Sequence[Passage], errand: Errand
    ) -> Generator[str, None, Draft]:
        """As `answerer.answer`, done where the passages are held. Raises EndedError."""
        read = answerer.prompt(question, [passage.text for passage in passages], self)
        asked = wanted(self.parts(read), errand.tenant, apart=self._facts.apart)
        told: SimpleQueue[Any] = SimpleQueue()
        work = Answer(answerer, question, tuple(passages))
        errand.hold(self._replicas.send(Task(work, asked, errand.tenant, errand.left), told.put))
        return (yield from until(told, Draft))


class WriteStream(Stream):
    """The stream of an answer that a replica writes: `task` says what is asked. Cancelled, it ends in EndedError."""

    def __init__(self, task: Task, replicas: Replicas) -> None:
        self.task = task
        handles: list[Handle] = []

        def run(cancelled: Event) -> Generator[Piece, None, Completion]:
            told: SimpleQueue[Any] = SimpleQueue()
            handles.append(replicas.send(task, told.put))
            if cancelled.is_set():
                handles[0].cancel()
            return (yield from until(told, Completion))

        def cancel() -> None:
            for handle in handles:
                handle.cancel()

        super().__init__(run, cancel)


class ReplicaRuns:
    """Runs the replicas for many callers: see `Runs`."""

    def __init__(self, engine: ReplicatedEngine, replicas: Replicas) -> None:
        self._engine = engine
        self._replicas = replicas

    def call(self, work: Callable[[], T]) -> Future[T]:
        return at_once(work)

    def stream(self, begin: Callable[[], Stream], deliver: Deliver) -> Handle:
        try:
            begun = begin()
            assert isinstance(begun, WriteStream)
        except Exception as error:
            deliver(error)
            return Handle(lambda: None)
        return self._replicas.send(begun.task, deliver)  # type: ignore[arg-type]

    def explore(self, begin: Callable[[], Reading], through: Looks, deliver: Deliver) -> Handle:
        deliver(UnsupportedError(f"{self._engine.model} computes in replicas: it is explored there alone"))
        return Handle(lambda: None)

    def answerer(self, answerer: Answerer, errand: Errand) -> Answerer:
        return _There(answerer, self._engine, errand)

    def close(self) -> None:
        self._replicas.close()


class _There:
    """An answerer whose answers are found by the replicas of an engine."""

    def __init__(self, answerer: Answerer, engine: ReplicatedEngine, errand: Errand) -> None:
        self._answerer = answerer
        self._engine = engine
        self._errand = errand

    def answer(self, question: str, passages: Sequence[Passage], engine: Engine) -> Generator[str, None, Draft]:
        return self._engine.answer(self._answerer, question, passages, self._errand)

    def prompt(self, question: str, passages: Sequence[str], engine: Engine) -> Prompt:
        return self._answerer.prompt(question, passages, engine)

    def overhead(self, question: str, engine: Engine) -> int:
        return self._answerer.overhead(question, engine)
