"""Methods that take the options of a dataclass as keywords, so that the list of them is written in one place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

S = TypeVar("S")
G = TypeVar("G")
O = TypeVar("O")  # noqa: E741
R = TypeVar("R")
P = ParamSpec("P")


def takes_options(
    options: Callable[P, O],
) -> Callable[[Callable[[S, G, O], R]], Callable[Concatenate[S, G, P], R]]:
    """Turns `method(self, given, options)` into `method(self, given, **fields of options)`.

    Type checkers and `help()` see the fields as parameters; one that is unknown is a TypeError, as with any function.
    """

    def decorate(method: Callable[[S, G, O], R]) -> Callable[Concatenate[S, G, P], R]:
        @functools.wraps(method)
        def taking(self: S, given: G, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(self, given, options(*args, **kwargs))

        known = inspect.signature(method)
        own = [p.replace(kind=p.POSITIONAL_ONLY) for p in list(known.parameters.values())[:2]]
        fields = inspect.signature(options).parameters.values()
        taking.__signature__ = known.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
        return taking

    return decorate
