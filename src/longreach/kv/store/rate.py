"""How long something takes, as far as one has seen."""

from __future__ import annotations

_LATEST = 0.5
"""What the latest measure counts for, beside all before it."""


class Rate:
    """Seconds a token, a running estimate; `None` before anything was seen. For any threads: one value is swapped."""

    def __init__(self) -> None:
        self._seconds: float | None = None

    def of(self, tokens: int) -> float | None:
        """What `tokens` tokens should take, in seconds."""
        return None if self._seconds is None else self._seconds * tokens

    def note(self, tokens: int, seconds: float) -> None:
        """It took `seconds`."""
        known, latest = self._seconds, seconds / tokens
        self._seconds = latest if known is None else known + _LATEST * (latest - known)

    def guess(self, tokens: int, seconds: float) -> None:
        """It took `seconds` elsewhere: better than nothing."""
        if self._seconds is None and seconds > 0:
            self._seconds = seconds / tokens

    def above(self, tokens: int, seconds: float) -> None:
        """It takes more than `seconds`: how much is not known."""
        self._seconds = max(self._seconds or 0.0, seconds / tokens)
