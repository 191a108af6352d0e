"""The source beside the answer: a document at the place that was cited."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from longreach.errors import InputError
from longreach.serve.access import may_read
from longreach.serve.page.elements import Action, box, button, complaints, show_if, text
from longreach.serve.page.figures import counted, place, sound
from longreach.serve.page.window import ROOM, Part, Piece, around, cut
from longreach.serve.refusals import not_found
from longreach.types import Document

if TYPE_CHECKING:
    from longreach.serve.page.sessions import Visitor

MORE = 4 * ROOM
"""Characters that are shown more at a time."""


class SourcePanel:
    """Shows one place of one document at a time; empty until something is opened."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._library = ""
        self._document: Document | None = None
        self._quote = self._passage = Part(0, 0)
        self._before = self._behind = ROOM
        self._panel = box("aside", "source")
        self._panel.props["aria-label"] = "Source"
        with self._panel:
            with box("header"):
                with box("div", "titles"):
                    self._name = text("h2", "", "name")
                    self._where = text("p", "", "where")
                button("✕", self.close, "quiet close", hint="Close the source (Esc)")
            self._page = box("div", "page")
        self.close()

    def close(self) -> None:
        """Show nothing."""
        self._document = None
        self._page.clear()
        show_if(self._panel, False)

    async def open(self, library: str, document: str, quote: Part, passage: Part) -> None:
        """Show `quote` of a document, and around it the passage that was read."""
        with complaints(self._visitor.service, self._panel):
            may_read(await self._visitor.key(), library)
            found = await self._visitor.service.search_in(lambda: self._read(library, document))
            self._library, self._document, self._quote, self._passage = library, found, quote, passage
            self._before = self._behind = ROOM
            self._name.set_text(sound(found.id))
            self._where.set_text(sound(place(found.place(quote.start))))
            self._draw()
            show_if(self._panel, True)
            self._panel.client.run_javascript("longreach.reveal()")

    def _read(self, library: str, document: str) -> Document:
        opened = self._visitor.service.shelf.get(library)
        try:
            return opened.get(document)
        except InputError:
            raise not_found(f"document {document!r} any more") from None

    async def _more(self, before: int, behind: int) -> None:
        with complaints(self._visitor.service, self._panel):
            may_read(await self._visitor.key(), self._library)
            self._before, self._behind = self._before + before, self._behind + behind
            self._draw()

    def _draw(self) -> None:
        document = self._document
        if document is None:
            return
        shown = around(document.text, self._quote.start, self._quote.end, self._before, self._behind)
        self._page.clear()
        with self._page:
            if shown.start:
                self._edge(counted(shown.start, "character"), "before", partial(self._more, MORE, 0))
            with box("div", "text"):
                for piece in cut(document, shown, self._quote, self._passage):
                    _draw(piece)
            if shown.end < len(document.text):
                self._edge(counted(len(document.text) - shown.end, "character"), "after", partial(self._more, 0, MORE))

    def _edge(self, much: str, side: str, action: Action) -> None:
        with box("div", "edge"):
            button(f"Show more · {much} {side} this", action, "quiet")


def _draw(piece: Piece) -> None:
    if piece.kind == "page":
        text("div", f"Page {piece.text}", "page-number")
        return
    tag = {"plain": "span", "passage": "span", "quote": "mark"}[piece.kind]
    shown = text(tag, piece.text, f"{piece.kind} {'heading' if piece.heading else ''}")
    if piece.kind == "quote":
        shown.props["tabindex"] = "-1"
