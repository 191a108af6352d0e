"""Ways of reuse: what an engine does with what it has read before. One way a file, named as its spec names it.

Which of them a model may take is a matter of measuring: `longreach doctor MODEL` tries each and writes down what it
costs (`longreach.engine.card`). To add a way, add a file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from longreach.registry import Family

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine
    from longreach.kv.store.store import KVStore

EXACT = "prefix"
"""The way that changes no number: every model may take it, measured or not."""
OpenStore: TypeAlias = "Callable[[], KVStore]"


class Tokenizes(Protocol):
    """What of an engine tells how it would read; there without its model."""

    context_length: int

    def tokenize(self, text: str) -> list[int]: ...


class Way(ABC):
    """One way of reuse. `tried` are the specs that are measured where none are named; empty, the bare name. Not
    `unasked`, it is measured only where it is named."""

    tried: ClassVar[tuple[str, ...]] = ()
    unasked: ClassVar[bool] = True

    @abstractmethod
    def made_of(self, engine: PagedEngine) -> str | None:
        """A name for what the way takes beside the model, such as an adapter's: what was measured with another does not
        hold. "" where it takes nothing, None where this model cannot go this way."""

    @abstractmethod
    def begin(self, engine: PagedEngine, store: OpenStore) -> None:
        """Let an engine that keeps no passages yet go this way from now on; `store` opens where it may keep them."""

    def filler(self, texts: Tokenizes) -> list[int]:
        """The tokens that passages are read behind, right behind what opens the prompt; none where it is that alone."""
        return []


ways: Family[Way] = Family("ways", __name__)


def specs() -> list[str]:
    """Of every way the specs that stand for it, the exact one first."""
    found = [spec for name in ways.names() for spec in ways.get(name).tried or (name,)]
    return sorted(found, key=lambda spec: spec != EXACT)


def tried() -> list[str]:
    """Those that are measured where none are named."""
    return [spec for spec in specs() if ways.get(spec.partition("(")[0]).unasked]
