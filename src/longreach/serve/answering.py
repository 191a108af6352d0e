"""The answers to the prompts of one request, for a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from longreach.engine import Completion, Engine, Piece, Prompt, Sampling
from longreach.errors import EndedError
from longreach.serve.driver import Runs
from longreach.serve.errand import Errand, start


class Answering:
    """Iterate over `(number of the prompt, piece)`; then `completions` holds what became of each prompt. A slow reader
    holds nobody up: pieces are kept until they are asked for, as many as the answers may have tokens."""

    def __init__(
        self, engine: Engine, runs: Runs, prompts: Sequence[Prompt], sampling: Sampling, errand: Errand
    ) -> None:
        self.completions: list[Completion | None] = [None] * len(prompts)
        self.errand = errand
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self._first: tuple[int, Piece] | None = None
        for number, prompt in enumerate(prompts):
            begin = partial(start, engine, prompt, sampling, errand)
            errand.hold(runs.stream(begin, partial(self._deliver, number)))

    def __aiter__(self) -> Answering:
        return self

    async def __anext__(self) -> tuple[int, Piece]:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        while any(completion is None for completion in self.completions):
            number, item = await self._items.get()
            if isinstance(item, Exception):
                raise item
            if not isinstance(item, Completion):
                return number, item
            if item.finish_reason == "cancelled":
                raise EndedError("the request's time is over")
            self.completions[number] = item
        raise StopAsyncIteration

    async def begin(self, seconds: float | None) -> None:
        """Wait for the first piece, so that what is wrong with a prompt is known before anything is sent. Raises
        EndedError where it takes longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                self._first = await self.__anext__()
        except StopAsyncIteration:
            pass
        except TimeoutError:
            self.errand.cancel()
            raise EndedError(f"no token came within the budget: ttft_ms={round((seconds or 0) * 1000)}") from None

    async def finish(self) -> list[Completion]:
        """Take what is left and give the completions."""
        async for _ in self:
            pass
        return self.done()

    def done(self) -> list[Completion]:
        """The completions, once the iteration has ended."""
        return [completion for completion in self.completions if completion is not None]

    def _deliver(self, number: int, item: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, (number, item))
        except RuntimeError:
            self.errand.cancel()  # the loop is closed: nobody waits any more
