"""How quickly prompts are read here, learned from requests: what a budget of time is turned into tokens by."""

from __future__ import annotations

from threading import Lock

LEAST = 32
"""Tokens: shorter prompts tell more of overheads than of the pace."""


class Pace:
    """Tokens of prompt a second, the last requests counting most; 0 while nothing is known."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._lock = Lock()

    def learn(self, tokens: int, seconds: float) -> None:
        """`tokens` were computed in the `seconds` before the first token came."""
        if tokens < LEAST or seconds <= 0:
            return
        with self._lock:
            rate = tokens / seconds
            self.rate = rate if not self.rate else self.rate + 0.2 * (rate - self.rate)

    def tokens_in(self, seconds: float) -> int | None:
        """How many tokens can be read in `seconds`; None while nothing is known."""
        return int(self.rate * seconds) if self.rate else None
