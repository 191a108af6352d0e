"""The documents of a library, to look at and to delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from longreach.serve.bodies.libraries import DocumentBody
from longreach.serve.page.elements import box, button, complaints, sure, tell, text
from longreach.serve.page.figures import counted
from longreach.serve.routes import documents

if TYPE_CHECKING:
    from longreach.serve.page.sessions import Visitor

AT_ONCE = 100


async def _nothing() -> None:
    pass


class DocumentList:
    """The oldest first, some at a time. `changed` is called after a deletion."""

    def __init__(self, visitor: Visitor, library: str, may_change: bool) -> None:
        self._visitor = visitor
        self._library = library
        self._may_change = may_change
        self._limit = AT_ONCE
        self.changed: Callable[[], Awaitable[None]] = _nothing
        self._place = box("div", "documents")

    async def show(self) -> None:
        """Look again at what there is."""
        service, key = self._visitor.service, await self._visitor.key()
        told = await documents.list_documents(self._library, service, key, min(self._limit, 1000), None)
        if self._place.is_deleted:
            return
        self._place.clear()
        with self._place:
            if not told.documents:
                text("p", "No documents yet.", "note")
                return
            with box("table"):
                with box("thead"), box("tr"):
                    for head in ("Document", "Passages", "Characters", ""):
                        text("th", head)
                with box("tbody"):
                    for one in told.documents:
                        self._row(one)
            if told.after is not None and self._limit < 1000:
                button("Show more", self._more, "quiet")

    def _row(self, one: DocumentBody) -> None:
        with box("tr"):
            text("td", one.id, "name")
            text("td", f"{one.chunks:,}", "figure")
            text("td", f"{one.characters:,}", "figure")
            with box("td", "figure"):
                if self._may_change:
                    button("Delete", partial(self._sure, one), "quiet danger small", hint=f"Delete {one.id}")

    async def _more(self) -> None:
        self._limit = min(1000, 4 * self._limit)
        with complaints(self._visitor.service, self._place):
            await self.show()

    async def _sure(self, one: DocumentBody) -> None:
        if await sure(self._place, "Delete this document?", f"{one.id} · {counted(one.chunks, 'passage')}"):
            service = self._visitor.service
            with complaints(service, self._place):
                await documents.delete_document(self._library, one.id, service, await self._visitor.spend())
                tell(f"{one.id} was deleted")
                await self.changed()
