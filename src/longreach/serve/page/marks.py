"""Where the marks of citations stand in an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def marked(text: str, quotes: Sequence[str]) -> list[str | int]:
    """`text` in pieces, with the number of a quote, from 1, behind the place where the answer says it. One that it says
    in other words stands at the end. The texts joined are `text`."""
    behind: dict[int, list[int]] = defaultdict(list)
    for number, quote in enumerate(quotes, 1):
        said = quote.strip()
        found = text.find(said) if said else -1
        behind[len(text.rstrip()) if found < 0 else found + len(said)].append(number)
    pieces: list[str | int] = []
    at = 0
    for place in sorted(behind):
        if place > at:
            pieces.append(text[at:place])
        pieces += behind[place]
        at = place
    return [*pieces, text[at:]] if at < len(text) else pieces
