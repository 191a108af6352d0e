"""Figures and texts as people read them."""

from __future__ import annotations

from longreach.types import Place


def size(count: float) -> str:
    """Bytes: `1.4 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(seconds: float) -> str:
    """A time: `240 ms`, `1.3 s`."""
    return f"{1000 * seconds:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def number(count: int) -> str:
    """`12,400`."""
    return f"{count:,}"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 document`, `3 documents`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def place(found: Place) -> str:
    """`page 3 · Pumps › Bolts`, or the line where there are no pages."""
    where = f"page {found.page}" if found.page is not None else f"line {found.line}"
    return " · ".join([where, *([" › ".join(found.section)] if found.section else [])])


def sound(text: str) -> str:
    """`text` as UTF-8 can carry it to a browser; as long as it was. No control characters but tabs and line ends."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c >= " " or c in "\t\n" else "\ufffd" if c != "\r" else " " for c in whole)
