"""How much of a growing text may be shown: no broken character, no part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

BROKEN = "\ufffd"


class Visible:
    """Cuts a text that grows at its end into pieces that are never taken back.

    What may still become something else is held: a character of which bytes are missing (decoders show U+FFFD), and an
    end that could be the beginning of a stop string.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._shown = 0
        self.text = ""
        self.stopped = False

    def update(self, text: str, *, final: bool = False) -> str:
        """The next piece of `text`, which is the whole text so far; all that is left of it when `final`.

        Once `stopped` is true, `self.text` ends before the stop string and nothing more comes.
        """
        if self.stopped:
            return ""
        settled = text if final else text.rstrip(BROKEN)
        found = [at for at in (settled.find(stop, self._shown) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            end = min(found)
        else:
            end = len(settled) if final else len(settled) - self._held(settled)
        return self._show(settled, end)

    def pass_over(self, text: str, *, final: bool = False) -> str:
        """As `update` for text in which no stop string counts, not even its beginning: the answer may not end yet."""
        return self._show(text, len(text if final else text.rstrip(BROKEN)))

    def _show(self, text: str, end: int) -> str:
        piece = text[self._shown : end]
        self._shown += len(piece)
        self.text += piece
        return piece

    def _held(self, text: str) -> int:
        """The length of the longest end of `text` with which a stop string begins."""
        for stop in self._stop:
            assert stop
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(text) - self._shown), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
