"""An answer of a server as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from longreach.engine.remote_options import read_logprobs
from longreach.engine.requests import Completion, FinishReason, Piece, Sampling, TokenLogprobs
from longreach.engine.visible import Visible
from longreach.types import Timing, Usage


class RemoteSample:
    """One of the answers to a prompt, made of the events of a stream. `reason` is "cancelled" until it has ended."""

    def __init__(self, number: int, sampling: Sampling, began: float) -> None:
        self.visible = Visible(sampling.stop)
        self.reason: FinishReason = "cancelled"
        self.pieces = 0
        self._number = number
        self._min_tokens = sampling.min_tokens
        self._began = began
        self._ttft = 0.0
        self._text = ""
        self._logprobs: list[TokenLogprobs] = []

    def take(self, choice: Any) -> Iterator[Piece]:
        """The piece of one event, if it has any."""
        if self.reason != "cancelled":
            return
        said = (choice.text if hasattr(choice, "text") else choice.delta.content) or ""
        logprobs = read_logprobs(choice)
        if said or logprobs:
            self._ttft = self._ttft or time.perf_counter() - self._began
            self._text += said
            self._logprobs += logprobs
            self.pieces += 1
            # A piece is at least a token: where the server heeds `min_tokens`, no stop string is missed.
            show = self.visible.pass_over if self.pieces <= self._min_tokens else self.visible.update
            yield Piece(show(self._text), None, self._number, logprobs)
        if choice.finish_reason:
            self.reason = "length" if choice.finish_reason == "length" else "stop"
        if self.visible.stopped:
            self.reason = "stop"

    def rest(self) -> Iterator[Piece]:
        """What was held back until the end."""
        if self.reason != "cancelled":
            rest = self.visible.update(self._text, final=True)
            if rest:
                yield Piece(rest, None, self._number)

    def completion(self, usage: Usage) -> Completion:
        timing = Timing(ttft=self._ttft, total=time.perf_counter() - self._began)
        return Completion(self.visible.text, (), self.reason, timing, usage, tuple(self._logprobs))
