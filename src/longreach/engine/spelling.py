"""The text of tokens that come one by one, without spelling all of them anew for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longreach.engine.visible import BROKEN

SETTLED = 16
"""Tokens after which what was spelt is settled, unless a character is under way."""


class Spelling:
    """Spells a list of tokens that grows at its end, by `decode`, as if it were given all of them.

    The last tokens are spelt together with some settled ones before them, since what a token spells may depend on
    those (a space that begins a word, a character in several tokens).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._text = ""  # of the tokens before `_settled`
        self._from = self._settled = 0

    def of(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, which begin with those of the last call."""
        ending = self._decode(tokens[self._from :])
        before = self._decode(tokens[self._from : self._settled]) if self._settled else ""
        if not ending.startswith(before):  # what follows changes what was there: all of it, then
            self._from = self._settled = 0
            self._text = ""
            ending, before = self._decode(tokens), ""
        text = self._text + ending[len(before) :]
        if len(tokens) - self._settled >= SETTLED and ending[len(before) :] and not ending.endswith(BROKEN):
            self._text, self._from, self._settled = text, self._settled, len(tokens)
        return text
