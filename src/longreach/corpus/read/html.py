"""HTML: what a reader of the page would read, without menus, sidebars, scripts and markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from longreach.corpus.read import Extract
from longreach.corpus.read.text import decode
from longreach.errors import DocumentError
from longreach.types import Anchor

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_UNSEEN = frozenset(
    "script style noscript template svg canvas iframe object audio video map head title "
    "button select textarea datalist".split()
)
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_MENUS = frozenset("nav menu dialog".split())
_MENU_ROLES = frozenset("navigation search menu menubar dialog".split())
_MARGINS = frozenset("aside footer".split())
_MARGIN_ROLES = frozenset("banner contentinfo complementary".split())
_PERMALINKS = frozenset("headerlink anchorjs-link heading-anchor anchor-link".split())
_PARAGRAPHS = frozenset(
    "p div section article main header hgroup ul ol dl table pre blockquote figure figcaption fieldset form address "
    "details summary center h1 h2 h3 h4 h5 h6 hr body caption".split()
)
_LINES = frozenset("li dt dd tr br option legend".split())
_IN_CELLS = frozenset("pre ul ol dl table h1 h2 h3 h4 h5 h6 li dt dd tr".split())
_SPACE = re.compile(r"[ \t\n\r\f]+")
_LEAST = 0.1
"""The share of a page's text that its marked main part must hold to stand for the page."""


def read(data: bytes) -> Extract:
    """The text of a page, its headings and its title. Raises DocumentError for binary data or absurd nesting."""
    source = _decode(data)
    page = _Page(furniture=False)
    _walk(source, page)
    text, anchors = page.main()
    if not text.strip():  # all of it was taken for menus: a page is better read in full than not at all
        page = _Page(furniture=True)
        _walk(source, page)
        text, anchors = page.main()
    return Extract(text, anchors, " ".join("".join(page.title).split()))


def _walk(source: str, page: _Page) -> None:
    """Show the page every tag and text in order; the parser puts in the tags that were left out."""
    from lxml import etree

    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(source.encode("utf-8"), parser)
    except etree.XMLSyntaxError:
        return  # there is no tag and no text in it
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise DocumentError("its tags are nested too deeply")
    if root is None:
        return
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "start":
            page.start(element.tag, element.attrib)
            page.read(element.text)
        else:
            page.end(element.tag)
            page.read(element.tail if element is not root else None)


def _decode(data: bytes) -> str:
    declared = _CHARSET.search(data[:4096])
    if declared and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) and b"\0" not in data:
        try:
            return data.decode(declared[1].decode("ascii"))
        except (UnicodeDecodeError, LookupError):
            pass  # the page does not keep what it declares
    return decode(data)


class _Open(NamedTuple):
    """A tag that is open: whether it hides what is in it, and where the page's main part began if it is that."""

    tag: str
    hides: bool
    main: int | None


class _Page:
    """Writes the text of a page as its tags come by; `furniture` says whether menus and sidebars count as text."""

    def __init__(self, *, furniture: bool) -> None:
        self.furniture = furniture
        self.title: list[str] = []
        self.out: list[str] = []
        self.length = 0
        self.anchors: list[Anchor] = []
        self.mains: list[tuple[int, int]] = []
        self.open: list[_Open] = []
        self.hidden = 0
        self.in_main = 0
        self.pre = 0
        self.cells = 0
        self.row = 0
        self.lists: list[int] = []
        """For each open list the number of its next item, 0 where items have bullets."""
        self.breaks = 2
        """Line breaks owed before the next text."""
        self.space = False
        self.marker = ""
        """A bullet, number or cell border owed before the next text."""
        self.heading: tuple[int, int, int] | None = None
        """Of the open heading: its level, its offset and its first piece in `out`; -1 until its text begins."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag in _VOID:
            if not self.hidden and tag in ("br", "hr"):
                self._break(tag)
            return
        hides = self._hides(tag, attributes)
        main = self.length if tag == "main" or attributes.get("role") == "main" else None
        self.open.append(_Open(tag, hides, main))
        self.hidden += hides
        self.in_main += main is not None
        if self.hidden:
            return
        self._break(tag)
        if tag == "pre":
            self.pre += 1
        elif tag in ("ul", "ol"):
            self.lists.append(int(tag == "ol"))
        elif tag == "li":
            self.marker = self._marker()
        elif tag == "tr":
            self.row = 0
        elif tag in ("td", "th"):
            self.cells += 1
            self.row += 1
            self.marker += " | " if self.row > 1 else ""
        elif tag in _HEADINGS:
            self.heading = (int(tag[1]), -1, -1)

    def end(self, tag: str) -> None:
        if tag not in _VOID:
            self._close()

    def read(self, data: str | None) -> None:
        if not data:
            return
        if self.open and self.open[-1].tag == "title" and not any(entry.tag == "svg" for entry in self.open):
            self.title.append(data)
        if self.hidden:
            return
        if self.pre:
            data = data.removeprefix("\n") if self.breaks else data
            if data:
                self._write(data)
            return
        text = _SPACE.sub(" ", data)
        self.space = self.space or text.startswith(" ")
        if words := text.strip(" "):
            self._write(words)
            self.space = text.endswith(" ")

    def main(self) -> tuple[str, list[Anchor]]:
        """The text of the main part, where the page marks one, else all of it; anchors to match."""
        text = "".join(self.out)
        start, end = max(self.mains, key=lambda span: span[1] - span[0], default=(0, len(text)))
        if end - start < _LEAST * len(text):
            start, end = 0, len(text)
        part = text[start:end]
        start += len(part) - len(part.lstrip())
        end = max(start, end - len(part) + len(part.rstrip()))
        anchors = [
            Anchor("heading", anchor.offset - start, anchor.label, anchor.level)
            for anchor in self.anchors
            if start <= anchor.offset < end
        ]
        return text[start:end] + "\n" * (end > start), anchors

    def _hides(self, tag: str, attributes: Mapping[str, str]) -> bool:
        if tag in _UNSEEN or "hidden" in attributes:
            return True
        if tag == "a" and not _PERMALINKS.isdisjoint(attributes.get("class", "").split()):
            return True
        if self.furniture:
            return False
        role = attributes.get("role", "")
        # In the main part an aside holds footnotes or a remark, and belongs to the text.
        margin = not self.in_main and (tag in _MARGINS or role in _MARGIN_ROLES)
        return margin or tag in _MENUS or role in _MENU_ROLES

    def _marker(self) -> str:
        indent = "  " * (len(self.lists) - 1)
        if not self.lists or not self.lists[-1]:
            return f"{indent}- "
        self.lists[-1] += 1
        return f"{indent}{self.lists[-1] - 1}. "

    def _break(self, tag: str) -> None:
        """Owe the line breaks that a tag makes; a fresh list item or cell swallows those of its first block."""
        if self.pre and tag == "br":
            self._write("\n")
        elif self.marker or (self.cells and tag not in _IN_CELLS):
            self.space = self.space or tag in _PARAGRAPHS or tag in _LINES
        elif tag in _PARAGRAPHS and not (tag in ("ul", "ol") and self.lists):
            self.breaks = 2
        elif tag in _PARAGRAPHS or tag in _LINES:
            self.breaks = max(self.breaks, 1)

    def _close(self) -> None:
        """Close the innermost open tag."""
        tag, hides, main = self.open.pop()
        self.in_main -= main is not None
        if self.hidden:
            self.hidden -= hides
            return
        if tag in ("li", "tr"):
            self.marker = ""  # it was empty
        elif tag in ("td", "th"):
            self.cells -= 1
        elif tag == "pre":
            self.pre -= 1
            if self.out and not self.breaks:
                shorter = self.out[-1].rstrip("\n")
                self.length -= len(self.out[-1]) - len(shorter)
                self.out[-1] = shorter
        elif tag in ("ul", "ol"):
            self.lists.pop()
        elif tag in _HEADINGS and self.heading:
            level, offset, piece = self.heading
            if offset >= 0:
                self.anchors.append(Anchor("heading", offset, " ".join("".join(self.out[piece:]).split()), level))
            self.heading = None
        self._break(tag)
        if tag == "li":
            self.breaks = 1  # items stand close, even if they hold paragraphs
        if main is not None:
            self.mains.append((main, self.length))

    def _write(self, text: str) -> None:
        if self.breaks:
            self._emit("\n" * (self.breaks if self.out else 0))
        elif self.space and not self.pre and not self.marker:
            self._emit(" ")
        self._emit(self.marker)
        if self.heading and self.heading[1] < 0:
            self.heading = (self.heading[0], self.length, len(self.out))
        self.breaks, self.space, self.marker = 0, False, ""
        self._emit(text)

    def _emit(self, text: str) -> None:
        if text:
            self.out.append(text)
            self.length += len(text)
