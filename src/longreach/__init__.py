"""Longreach: question answering over more text than a language model can read, every answer traced to its source.

from longreach import Engine, Library, Reader

library = Library.open("notes.library", create=True)
library.add("docs/")
answer = Reader(library, Engine.load("embedded")).ask("How is the cache keyed?")
print(answer.text, answer.citations[0].quote)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longreach.engine import Engine
    from longreach.library import Library
    from longreach.reader import Reader

__all__ = ["Engine", "Library", "Reader"]
__version__ = "0.1.0"

_HOMES = {"Engine": "longreach.engine", "Library": "longreach.library", "Reader": "longreach.reader"}


def __getattr__(name: str) -> object:
    # Looked up late so that a command that needs one of them does not pay for the others.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
