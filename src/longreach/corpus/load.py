"""Files become documents: text, anchors, and what is known about them."""

from __future__ import annotations

import os
from pathlib import Path

from longreach.corpus.formats import FORMATS, NOT_TEXT, PLAIN, Format, extension, format_of
from longreach.corpus.read import Extract
from longreach.errors import DocumentError
from longreach.types import Document, MetadataValue

SIZE_LIMIT = 100_000_000
"""Bytes; a larger file is more likely data than something to read."""
TIMEOUT = 300.0
"""Seconds for a parser of PDF or office files."""


def load(path: str | Path, *, size_limit: int = SIZE_LIMIT, timeout: float = TIMEOUT) -> Document:
    """Read one file; the document's id is its absolute POSIX path.

    Raises DocumentError, in one sentence that names the file, when it is missing, unreadable, empty, binary, damaged,
    locked by a password, larger than `size_limit` bytes, or takes its parser longer than `timeout` seconds.
    """
    location = Path(os.path.abspath(path))
    try:
        size = location.stat().st_size
        if not location.is_file():
            raise DocumentError(f"cannot read {printable(location)}: it is not a file")
        if size > size_limit:
            limit = f"{size_limit / 1e6:.0f} MB"
            raise DocumentError(
                f"cannot read {printable(location)}: its {size / 1e6:.0f} MB are over the limit of {limit}"
            )
        data = location.read_bytes()
    except OSError as error:
        raise DocumentError(f"cannot read {printable(location)}: {error.strerror or error}") from None
    except ValueError as error:
        raise DocumentError(f"cannot read {printable(location)}: {error}") from None
    return load_bytes(data, location.as_posix(), timeout=timeout)


def load_bytes(
    data: bytes, name: str, *, id: str | None = None, media_type: str | None = None, timeout: float = TIMEOUT
) -> Document:
    """Read the contents of a file that is called `name`; the extension tells the format unless `media_type` does.

    `id` is `name` if not given. Raises DocumentError as `load` does.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DocumentError(f"cannot read {printable(name)}: its name is not valid UTF-8, rename it") from None
    form = _format(name, media_type)
    try:
        extract = _read(data, form, name, timeout)
    except DocumentError as error:
        raise DocumentError(f"cannot read {printable(name)}: {error}") from None
    metadata: dict[str, MetadataValue] = {
        "name": name.rsplit("/", 1)[-1],
        "extension": extension(name),
        "size": len(data),
    }
    if extract.title:
        metadata["title"] = extract.title
    return Document(
        id=name if id is None else id,
        text=extract.text,
        source=name,
        metadata=metadata,
        anchors=tuple(sorted(extract.anchors, key=lambda anchor: (anchor.offset, anchor.kind != "page"))),
        media_type=form.media_type,
    )


def printable(path: str | Path) -> str:
    """A path fit for a message: bytes that are not UTF-8 and control characters escaped."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def _format(name: str, media_type: str | None) -> Format:
    if media_type is None:
        return format_of(name) or PLAIN
    known = (form for form in FORMATS.values() if form.media_type == media_type)
    return next(known, Format(media_type, "text"))


def _read(data: bytes, form: Format, name: str, timeout: float) -> Extract:
    if not data or data.isspace():
        raise DocumentError("it is empty")
    if form is PLAIN and extension(name) in NOT_TEXT:
        raise DocumentError(f"no reader understands .{extension(name)} files")
    if form.reader == "structured":
        from longreach.corpus.read import structured

        return structured.read(data, form.media_type, timeout)
    if form.reader == "html":
        from longreach.corpus.read import html

        extract = html.read(data)
    elif form.reader == "markdown":
        from longreach.corpus.read import markdown

        extract = markdown.read(data)
    else:
        from longreach.corpus.read import text

        extract = text.read(data)
    if not extract.text or extract.text.isspace():
        raise DocumentError("it holds no text")
    return extract
