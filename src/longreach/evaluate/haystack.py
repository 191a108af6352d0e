"""Text in which something is hidden: sentences of prose, to be taken by the word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from longreach.errors import InputError
from longreach.evaluate.data import data_file, read_json

NOISE = (
    "Rain fell on the roofs of the town.",
    "A cart went by and nobody looked up.",
    "The baker opened his window and closed it again.",
    "Somewhere a door was painted green.",
    "It was neither warm nor cold that day.",
)
"""What `haystack="noise"` says over and over."""
_PARAGRAPH = re.compile(r"\n\s*\n")
_BREAK = re.compile(r"(?<!\b[MD]r)(?<!\bMrs)(?<!\bSt)(?<!\b[A-Z])[.!?][\"'”’)]*(?=\s+[\"'“‘(]?[A-Z])")
_ENDS = tuple('.!?"”’)')
_SHORTEST, _LONGEST = 4, 60
"""Words of a sentence; shorter and longer runs are headings, tables and lists."""


@dataclass(frozen=True)
class Haystack:
    """`sentences`, each with its spaces tidied."""

    sentences: tuple[str, ...]

    def stretch(self, start: int, words: int) -> list[str]:
        """Sentences from number `start` on, beginning again after the last; `words` in all, the last one cut where it
        must be."""
        taken: list[str] = []
        at = start
        while words > 0:
            sentence = self.sentences[at % len(self.sentences)]
            size = sentence.count(" ") + 1
            taken.append(sentence if size <= words else " ".join(sentence.split()[:words]))
            words -= size
            at += 1
        return taken

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The plain English words of 4 to 10 letters in it, by the alphabet."""
        found = {word for sentence in self.sentences for word in re.findall(r"\b[a-z]{4,10}\b", sentence)}
        return tuple(sorted(found))


@lru_cache(maxsize=4)
def load_haystack(name: str) -> Haystack:
    """The haystack `name`: "noise", a data set ("books", or any retrieval pack), a text file, or a folder of `.txt`
    files. Raises InputError where there is none, or too little of it."""
    if name == "noise":
        return Haystack(NOISE)
    path = Path(name).expanduser()
    if path.is_file() and path.suffix != ".gz":
        texts = [path.read_text(encoding="utf-8", errors="replace")]
    elif path.is_dir():
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(path.rglob("*.txt"))]
    else:
        texts = _texts(read_json(path if path.is_file() else data_file(name)))
    found = Haystack(tuple(sentence for text in texts for sentence in _sentences(text)))
    if len(found.sentences) < 10:
        raise InputError(f"the haystack {name!r} has {len(found.sentences)} sentences: it takes at least 10 of prose")
    return found


def _texts(content: Any) -> list[str]:
    """The texts of a data set, whichever way it keeps them."""
    for key in ("docs", "corpora"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    values = content.values() if isinstance(content, dict) else []
    return [text for text in values if isinstance(text, str)]


def _sentences(text: str) -> list[str]:
    found: list[str] = []
    for paragraph in _PARAGRAPH.split(text.replace("\r\n", "\n")):
        line = " ".join(paragraph.replace("_", "").split())
        ends = [match.end() for match in _BREAK.finditer(line)]
        for start, end in pairwise([0, *ends, len(line)]):
            sentence = line[start:end].strip()
            words = sentence.count(" ") + 1
            if _SHORTEST <= words <= _LONGEST and sentence.endswith(_ENDS) and not sentence.isupper():
                found.append(sentence)
    return found
