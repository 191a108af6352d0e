"""Who may work now, who waits, who is sent away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque

from longreach.serve.refusals import Refusal

USUAL_SECONDS = 2.0
"""How long a request is taken to last before one has ended."""
LONGEST_WAIT = 60.0
"""Seconds: nobody is told to come back later than that."""


class Pass:
    """A place at work; `leave` gives it back, once."""

    def __init__(self, gate: Gate, tenant: str) -> None:
        self._gate = gate
        self._tenant = tenant
        self._began = time.perf_counter()
        self._left = False

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._gate.left(self._tenant, time.perf_counter() - self._began)


class Gate:
    """Lets `running` requests work and `queue` more wait, first come, first served. With `shared`, no tenant has more
    than half of all places. For one event loop."""

    def __init__(self, running: int, queue: int) -> None:
        self.most, self.queue = running, queue
        self.shared = False
        self.working = 0
        self.closed: Refusal | None = Refusal(503, "the server is starting", code="starting", wait=2)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._places: Counter[str] = Counter()
        self._seconds = USUAL_SECONDS
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, tenant: str, seconds: float) -> Pass:
        """A place, waited for at most `seconds`. Raises Refusal: 503 where nobody is let in, 429 where too many wait,
        504 where its turn did not come."""
        if self.closed is not None:
            raise self.closed.again()
        busy = self.working >= self.most
        if busy and self.waiting >= self.queue:
            raise Refusal(429, "too many requests wait already: try again later", code="queue_full", wait=self.wait())
        if self.shared and self._places[tenant] >= max(1, (self.most + self.queue) // 2):
            raise Refusal(429, "too many requests of yours are here", code="share_used", wait=self.wait())
        self._places[tenant] += 1
        self._empty.clear()
        if busy or self._waiting:
            await self._turn(tenant, seconds)
        else:
            self.working += 1
        return Pass(self, tenant)

    def left(self, tenant: str, seconds: float) -> None:
        """A request has ended that worked for `seconds`."""
        self._seconds += 0.1 * (seconds - self._seconds)
        self.working -= 1
        self._gone(tenant)
        self._admit()

    def close(self, refusal: Refusal) -> None:
        """Let nobody in any more, those who wait included."""
        self.closed = refusal
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(refusal.again())

    def open(self) -> None:
        """Let requests in from now on."""
        self.closed = None

    def wait(self) -> float:
        """Seconds after which it is worth trying again."""
        return min(LONGEST_WAIT, self._seconds * (self.waiting + 1) / self.most)

    async def empty(self) -> None:
        """Wait until nobody works or waits."""
        await self._empty.wait()

    async def _turn(self, tenant: str, seconds: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self.working -= 1  # it was let in just when it went
                self._admit()
            self._gone(tenant)
            if isinstance(error, TimeoutError):
                raise Refusal(504, "the request's time was over before its turn came", code="timeout") from None
            raise

    def _admit(self) -> None:
        while self._waiting and self.working < self.most:
            turn = self._waiting.popleft()
            if not turn.done():
                self.working += 1
                turn.set_result(None)

    def _gone(self, tenant: str) -> None:
        self._places[tenant] -= 1
        self._places += Counter()  # without those that came to nothing
        if not self._places:
            self._empty.set()
