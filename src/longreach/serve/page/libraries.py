"""Libraries: make them, put documents in, see how far they are and what they take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from longreach.serve.bodies.libraries import LibraryBody, LibraryRequest
from longreach.serve.page.documents import DocumentList
from longreach.serve.page.elements import box, button, complaints, show_if, sure, tell, text
from longreach.serve.page.figures import counted, size
from longreach.serve.page.sizes import sizes
from longreach.serve.page.uploads import Uploads
from longreach.serve.refusals import bad
from longreach.serve.routes import libraries

if TYPE_CHECKING:
    from longreach.serve.keys import Key
    from longreach.serve.page.sessions import Visitor


class LibrariesView:
    """A list of libraries, and one of them. `ask(library)` shows the other view."""

    def __init__(self, visitor: Visitor, ask: Callable[[str], Awaitable[None]]) -> None:
        from nicegui import ui

        self._visitor = visitor
        self._ask = ask
        self._chosen: str | None = None
        self._turn = 0
        self.place = box("section", "view libraries")
        with self.place:
            with box("nav", "list") as nav:
                nav.props["aria-label"] = "Libraries"
                text("h2", "Libraries")
                self._names = box("ul")
                with box("form", "new") as self._new:
                    self._new.on("submit", lambda _: self._make(), args=[], js_handler=_SUBMITTED)
                    self._name = ui.input().props("dense borderless maxlength=64").classes("field")
                    self._name.props["placeholder"] = "new-library"
                    self._name.props["aria-label"] = "Name of a new library: small letters, digits, - and _"
                    text("button", "Make", "button").props["type"] = "submit"
            self._one = box("div", "one")

    async def show(self, library: str | None = None) -> None:
        """Look again at what there is; show `library`, or the one that was shown."""
        service = self._visitor.service
        self._turn += 1
        turn = self._turn
        with complaints(service, self.place):
            key = await self._visitor.key()
            known = (await libraries.list_libraries(service, key)).libraries
            if turn != self._turn:
                return
            chosen = library or self._chosen
            self._chosen = chosen if chosen in known else next(iter(known), None)
            show_if(self._new, key.write)
            self._names.clear()
            with self._names:
                for name in known:
                    with box("li"):
                        entry = button(name, partial(self.show, name), "entry")
                        if name == self._chosen:
                            entry.classes("chosen").props["aria-current"] = "true"
            self._one.clear()
            if self._chosen is None:
                self._nothing(key)
            else:
                await self._draw(self._chosen, key, turn)

    def _nothing(self, key: Key) -> None:
        with self._one, box("div", "empty"):
            text("h2", "No library yet")
            if key.write:
                text("p", "Give one a name, such as manuals, and drop your files into it.")
                text("p", "They are read and kept on this server.")
            else:
                text("p", "Your key may ask, and there is nothing to be asked yet.")

    async def _draw(self, name: str, key: Key, turn: int) -> None:
        service = self._visitor.service
        about = await libraries.look(name, service, key)
        may_change = key.write and about.writable
        if turn != self._turn:
            return  # something else is shown by now
        with self._one:
            with box("header", "title"):
                with box("div", "titles"):
                    text("h2", name, "name")
                    facts = text("p", _facts(about), "where")
                button("Ask it", partial(self._ask, name), "main")
                if may_change:
                    button("Delete", partial(self._sure, name), "quiet danger", hint=f"Delete the library {name}")
            bar = box("div", "disk")
            documents = DocumentList(self._visitor, name, may_change)

            async def changed() -> None:
                with complaints(service, self.place):
                    now = await self._visitor.key()
                    facts.set_text(_facts(await libraries.look(name, service, now)))
                    await documents.show()
                    await self._sizes(name, now, bar)

            documents.changed = changed
            uploads = Uploads(self._visitor, name, changed, may_change)
            uploads.place.move(self._one, target_index=2)
        await uploads.look()
        await changed()

    async def _sizes(self, name: str, key: Key, bar: Any) -> None:
        service = self._visitor.service
        told = await service.write_in(lambda: sizes(service, service.shelf.get(name), key))
        if bar.is_deleted:
            return
        parts = [
            ("text", "Text and terms", told.text),
            ("vectors", "Vectors", told.vectors),
            ("kv", "KV, about", told.kv or 0),
        ]
        bar.clear()
        with bar:
            with box("div", "bar"):
                for kind, _, count in parts:
                    if count:
                        box("span", kind).style(f"flex-grow: {count}")
            with box("ul", "legend"):
                for kind, words, count in parts:
                    with box("li"):
                        box("i", kind)
                        text("b", "unknown" if kind == "kv" and told.kv is None else size(count))
                        text("span", words)

    async def _make(self) -> None:
        service = self._visitor.service
        with complaints(service, self.place):
            name = (self._name.value or "").strip()
            try:
                body = LibraryRequest(name=name)
            except ValidationError:
                raise bad(
                    "a library is called by small letters, digits, - and _, such as manuals-2025", "name"
                ) from None
            await libraries.create(body, service, await self._visitor.spend())
            self._name.set_value("")
            await self.show(name)

    async def _sure(self, name: str) -> None:
        if await sure(
            self.place, f"Delete {name}?", "All of its documents are taken from the disk. This cannot be undone."
        ):
            with complaints(self._visitor.service, self.place):
                await libraries.delete(name, self._visitor.service, await self._visitor.spend())
                tell(f"{name} was deleted")
                await self.show()


_SUBMITTED = "(event) => { event.preventDefault(); emit(); }"


def _facts(about: LibraryBody) -> str:
    parts = [counted(about.documents, "document"), counted(about.chunks, "passage"), size(about.bytes)]
    return " · ".join(parts if about.writable else [*parts, "read only here"])
