"""PDF, DOCX, PPTX, XLSX and EPUB, through Kreuzberg (https://github.com/kreuzberg-dev/kreuzberg).

Its output formats escape, link and reflow text, and the page boundaries that it reports for slides drift; so the text
is put together here from the structure that it finds, and every anchor is exact because it is set while writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from longreach.corpus.read import Extract
from longreach.errors import DocumentError
from longreach.types import Anchor

_PAGE_MARK = "longreach-page-{page_num}-begins"
_IS_PAGE_MARK = re.compile(r"longreach-page-(\d+)-begins")
_SLIDES = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_PDF = "application/pdf"
_LEAST = 0.8
"""The share of a page's words that the structure must hold, else the page is taken as its bare text."""


class _Block(NamedTuple):
    """A paragraph, heading, list item or table on a page; pages count from 1, 0 where the format has none."""

    kind: str
    text: str
    page: int
    level: int = 0


def read(data: bytes, media_type: str, timeout: float) -> Extract:
    """The text of a document with its pages and headings. Reading stops after `timeout` seconds.

    Raises DocumentError when the file is damaged, locked by a password, without text, or takes too long.
    """
    result = _extract(data, media_type, timeout)
    blocks = list(_blocks(result.document["nodes"] if result.document else [], guessed=media_type == _PDF))
    if media_type not in (_PDF, _SLIDES):  # the pages of other formats are the parser's guess
        blocks = [block._replace(page=0) for block in blocks]
    if media_type == _PDF:
        blocks = list(_whole(blocks, {page["page_number"]: page["content"] for page in result.pages or ()}))
    if not any(block.text for block in blocks):
        blocks = [_Block("paragraph", result.content, 0)]
    extract = _write(blocks)
    if not extract.text.strip():
        images = " (a scan? its pages may be images)" if media_type == _PDF else ""
        raise DocumentError(f"it holds no text{images}")
    return Extract(extract.text, extract.anchors, _title(result.metadata))


def _extract(data: bytes, media_type: str, timeout: float) -> Any:
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        output_format="markdown",  # what makes it look for headings in PDF
        include_document_structure=True,
        pages=kreuzberg.PageConfig(
            extract_pages=True, insert_page_markers=media_type == _SLIDES, marker_format=f"\n\n{_PAGE_MARK}\n\n"
        ),
        extraction_timeout_secs=max(1, round(timeout)),
    )
    try:
        return kreuzberg.extract_bytes_sync(data, media_type, config=config)
    except BaseException as error:
        # A panic in the compiled part arrives as a BaseException that is nobody's wish to stop.
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError | GeneratorExit):
            raise
        raise DocumentError(_reason(error, timeout)) from None


def _reason(error: BaseException, timeout: float) -> str:
    message = str(error).lower()
    if "password" in message or "encrypted" in message:
        return "it is locked by a password; save a copy without one"
    if "timeout" in message or "timed out" in message or "cancel" in message:
        return f"reading it took longer than {timeout:g} s"
    return "it is damaged, or not what its name says"


def _blocks(nodes: Sequence[Mapping[str, Any]], *, guessed: bool) -> Iterator[_Block]:
    """The blocks of a document. `guessed`: tables are those that the parser sees in where words stand."""
    page = 0
    for node in nodes:
        content = node["content"]
        kind = content["node_type"]
        text = (content.get("text") or "").replace("\r\n", "\n").strip("\n")
        if mark := _IS_PAGE_MARK.fullmatch(text.strip()):
            page = int(mark[1])
        elif kind == "table":
            rows = _rows(content["grid"]["cells"])
            running = guessed and _is_running_text(rows)
            lines = [(" " if running else " | ").join(row).rstrip(" |") for row in rows]
            yield _Block("paragraph" if running else kind, "\n".join(lines), node.get("page") or page)
        elif kind == "list_item":
            yield _Block(kind, f"- {text}" if text else "", node.get("page") or page)
        elif text:
            level = int(content.get("level") or 1) if kind in ("heading", "title") else 0
            yield _Block("heading" if level else kind, text, node.get("page") or page, level)


def _rows(cells: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    rows: dict[int, list[str]] = {}
    for cell in cells:
        rows.setdefault(cell["row"], []).append(" ".join(cell["content"].split()))
    return [row for _, row in sorted(rows.items())]


def _is_running_text(rows: Sequence[Sequence[str]]) -> bool:
    """Whether what was taken for a table are lines of text that stand far apart: most rows end as sentences do, and go
    on in lower case from cell to cell."""
    split = [[cell for cell in row if cell] for row in rows]
    split = [row for row in split if len(row) > 1]
    likely = [row for row in split if row[-1].endswith((".", "!", "?", ":", ";")) and _share_lower(row[1:]) > 0.5]
    return 2 * len(likely) > len(split)


def _share_lower(cells: Sequence[str]) -> float:
    return sum(cell[0].islower() for cell in cells) / len(cells)


def _whole(blocks: Sequence[_Block], pages: Mapping[int, str]) -> Iterator[_Block]:
    """The blocks of each page, or its bare text where the structure has lost too much of it."""
    by_page: dict[int, list[_Block]] = {}
    last = 1
    for block in blocks:
        last = block.page or last
        by_page.setdefault(last, []).append(block._replace(page=last))
    for number in sorted({*by_page, *pages}):
        found = by_page.get(number, [])
        bare = pages.get(number, "").replace("\r\n", "\n").strip()
        if sum(len(block.text.split()) for block in found) < _LEAST * len(bare.split()):
            yield _Block("paragraph", bare, number)
        else:
            yield from found


def _write(blocks: Iterable[_Block]) -> Extract:
    parts: list[str] = []
    anchors: list[Anchor] = []
    length = page = 0
    before = ""
    for block in blocks:
        if not block.text.strip():
            continue
        gap = "\n" if before == block.kind == "list_item" else "\n\n"
        if parts:
            parts.append(gap)
            length += len(gap)
        if block.page and block.page != page:
            page = block.page
            # The first page's anchor stands at 0 even if nothing else does, so that every character has a page.
            anchors.append(Anchor("page", length, str(page)))
        if block.kind == "heading":
            anchors.append(Anchor("heading", length, " ".join(block.text.split()), block.level))
        parts.append(block.text)
        length += len(block.text)
        before = block.kind
    return Extract("".join(parts) + "\n" * bool(parts), anchors)


def _title(metadata: Mapping[str, Any]) -> str:
    title = metadata.get("title")
    title = " ".join(title.split()) if isinstance(title, str) else ""
    return "" if title.lower() in ("", "untitled", "(unspecified)", "(anonymous)") else title
