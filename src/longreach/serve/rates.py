"""How many requests a key may make."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock

from longreach.serve.keys import Key
from longreach.serve.refusals import Refusal


@dataclass
class Rates:
    """A token bucket for each key: it holds a minute's requests, and fills as quickly as they may come."""

    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)  # what is left, and when that was so
    _lock: Lock = field(default_factory=Lock)

    def take(self, key: Key, now: float | None = None) -> None:
        """Count one request. Raises Refusal, 429, where there were too many. `now`: seconds of a clock that does not
        jump."""
        if not key.per_minute:
            return
        now = time.monotonic() if now is None else now
        with self._lock:
            left, since = self._buckets.get(key.id, (float(key.per_minute), now))
            left = min(float(key.per_minute), left + (now - since) * key.per_minute / 60)
            if left < 1:
                self._buckets[key.id] = left, now
                wait = (1 - left) * 60 / key.per_minute
                message = f"this key may make {key.per_minute} requests a minute: try again later"
                raise Refusal(429, message, code="rate_limit_exceeded", wait=wait)
            self._buckets[key.id] = left - 1, now
