"""Fields of options that know which values they may have, so that each is written once and refused in one sentence."""

from __future__ import annotations

import math
from dataclasses import field, fields
from numbers import Integral, Real
from typing import Any

from longreach.errors import InputError

_RANGE = "range"


def whole(default: int | None, *, least: int, most: int | None = None) -> Any:
    """A dataclass field that holds a whole number from `least` to `most`; None is allowed where it is the default."""
    said = f"a whole number, {least} {'or more' if most is None else f'to {most}'}"
    return _field(default, said, lambda value: isinstance(value, Integral) and _within(value, least, most))


def real(default: float, *, least: float | None = None, above: float | None = None, most: float | None = None) -> Any:
    """A dataclass field that holds a finite number from `least`, or more than `above`, to `most`."""
    low = f"{least:g} or more" if above is None else f"more than {above:g}"
    said = low if most is None else f"{least:g} to {most:g}" if above is None else f"{low}, at most {most:g}"

    def fits(value: Any) -> bool:
        return isinstance(value, Real) and _within(value, least, most) and (above is None or float(value) > above)

    return _field(default, said, fits)


def switch(default: bool) -> Any:
    """A dataclass field that is true or false."""
    return _field(default, "True or False", lambda value: value is True or value is False)


def check(options: Any) -> None:
    """Raises InputError naming the first field of the dataclass `options` whose value is out of its range."""
    for option in fields(options):
        known = option.metadata.get(_RANGE)
        value = getattr(options, option.name)
        if known is None or (value is None and option.default is None):
            continue
        said, fits = known
        if (isinstance(value, bool) and not isinstance(option.default, bool)) or not fits(value):
            raise InputError(f"{option.name}={value!r} is out of range: {said}")


def _field(default: Any, said: str, fits: Any) -> Any:
    return field(default=default, metadata={_RANGE: (said, fits)})


def _within(value: Any, least: float | None, most: float | None) -> bool:
    finite = isinstance(value, Integral) or math.isfinite(value)
    return finite and (least is None or value >= least) and (most is None or value <= most)
