"""Passages that are to be read apart when there is time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from longreach.kv.store.files import remove, start, write
from longreach.kv.store.key import Key

MOST = 4096
"""Passages that are known at once; of more, those are forgotten that came first."""
FILE = "met"
"""In the folder of a model's entries: what was met, by digest, one a line, the latest last."""
_LINE = 33


@dataclass(frozen=True, slots=True)
class Met:
    """Where a passage was met: behind which opening, for whom."""

    opening: tuple[int, ...]
    tenant: str


class Postponed:
    """What prompts had that were read as a whole. With a `file` the next engine knows of it too, such as that of the
    next `longreach ask`; nothing that goes wrong with the file is an error: less is known then."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._waiting: OrderedDict[Key, Met] = OrderedDict()
        self._known = dict.fromkeys(_noted(file)) if file is not None else {}

    def holds_back(self, missing: Collection[Key], tokens: int, met: Met) -> bool:
        """Whether a prompt with so many `tokens` of passages, of which those of `missing` are not at hand, is better
        read as a whole: where half of them were never met before. Its passages are known from then on."""
        new = [key for key in missing if key.digest not in self._known]
        if 2 * sum(len(key.tokens) for key in new) <= tokens:
            return False
        self._waiting.update(dict.fromkeys(missing, met))
        while len(self._waiting) > MOST:
            self._waiting.popitem(last=False)
        self._note([key.digest for key in new])
        return True

    def take(self) -> tuple[Key, Met] | None:
        """The passage that was met last, which waits no longer then."""
        return self._waiting.popitem() if self._waiting else None

    def clear(self) -> None:
        self._waiting.clear()
        self._known.clear()
        if self._file is not None:
            remove(self._file)

    def _note(self, digests: Sequence[str]) -> None:
        """Know `digests` from now on, here and in the file, which is written anew once half of it is too old."""
        self._known.update(dict.fromkeys(digests))
        lines = "".join(f"{digest}\n" for digest in digests).encode()
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        if self._file is None:
            return
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab", buffering=0) as file:
                file.write(lines)
                grown = file.tell() > 2 * MOST * _LINE
            if grown:
                write(self._file, "".join(f"{digest}\n" for digest in self._known).encode())


def _noted(file: Path) -> list[str]:
    """The digests of a file, as far as they are ones."""
    lines = start(file, 4 * MOST * _LINE).decode("ascii", "replace").split("\n")
    return [line for line in lines if len(line) == _LINE - 1][-MOST:]
