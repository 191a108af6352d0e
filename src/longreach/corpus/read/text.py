"""Plain text and source code: the file's own characters, whatever their encoding."""

from __future__ import annotations

import codecs

from longreach.corpus.read import Extract
from longreach.errors import DocumentError

_BOMS = (  # UTF-32's little-endian mark begins with UTF-16's, so it stands first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 64 * 1024
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b"))


def read(data: bytes) -> Extract:
    """The text of a file. Raises DocumentError for binary data."""
    return Extract(decode(data))


def decode(data: bytes) -> str:
    """Characters of `data`: a byte order mark decides (and is dropped), then UTF-8, UTF-16 without a mark, then the
    likeliest legacy encoding. Line ends stay as they are. Raises DocumentError for binary data."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], encoding)
    if is_binary(data[:_SAMPLE]) or (b"\0" in data and not _utf16(data[:_SAMPLE])):
        raise DocumentError("it is binary, not text")
    if encoding := _utf16(data[:_SAMPLE]):
        return _strict(data, encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _legacy(data)


def is_binary(sample: bytes) -> bool:
    """Whether the first bytes of a file look unlike text: NULs (save UTF-16's) or many control characters."""
    if any(sample.startswith(mark) for mark, _ in _BOMS) or _utf16(sample):
        return False
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return b"\0" in sample or controls > 0.02 * len(sample)


def _utf16(sample: bytes) -> str:
    """The byte order of UTF-16 without a mark: in Western text nearly every second byte is NUL, the others are not."""
    half = len(sample) // 2
    if half < 2:
        return ""
    even, odd = sample[: 2 * half : 2].count(0), sample[1 : 2 * half : 2].count(0)
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * half and odd < 0.05 * half else ""


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise DocumentError(f"it begins as {encoding} text but is damaged further on") from None


def _legacy(data: bytes) -> str:
    """Not valid UTF-8: mostly UTF-8 with a few broken bytes, which become U+FFFD, or an older encoding."""
    mended = data.decode("utf-8", "replace")
    broken = mended.count("\ufffd")
    whole = len(mended) - broken - len(data.translate(None, _HIGH_BYTES))
    if whole > 2 * broken:
        return mended
    from charset_normalizer import from_bytes

    at = next(index for index, byte in enumerate(data) if byte > 127)  # a sample that holds what is to be decided
    window = data[max(0, at - _SAMPLE // 2) : at + _SAMPLE // 2]
    best = from_bytes(window).best()
    for encoding in (best.encoding if best else "cp1252", "cp1252"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1")


_HIGH_BYTES = bytes(range(128, 256))
