"""What stands around the views: where one is, light or dark, the way out."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Protocol

from fastapi import Request

from longreach.serve.page.ask import AskView
from longreach.serve.page.elements import box, button, show_if, text
from longreach.serve.page.frontier import FrontierView
from longreach.serve.page.libraries import LibrariesView
from longreach.serve.page.sessions import Visitor

if TYPE_CHECKING:
    from nicegui.element import Element
    from nicegui.elements.mixins.text_element import TextElement

SOON = 1.0
"""Seconds between two looks at whether the model is loaded."""


async def show(request: Request) -> None:
    """The page of whoever asks for it."""
    from nicegui import ui

    visitor: Visitor = request.state.visitor
    folder = files("longreach.serve.page")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    ui.add_head_html(f"<style>{style}</style><script>{script}</script>")
    await Frame(visitor).begin()


class View(Protocol):
    """One of what the header names; it lies in `place`."""

    place: Element

    async def show(self, library: str | None = None) -> None:
        """As things are now; of `library`, where that says something."""
        ...


class Frame:
    """The header and three views, one of which is shown."""

    def __init__(self, visitor: Visitor) -> None:
        from nicegui import ui

        self._visitor = visitor
        self._tabs: dict[str, TextElement] = {}
        with box("header", "top"):
            text("span", "Longreach", "brand")
            with box("nav", "tabs") as nav:
                nav.props["aria-label"] = "Views"
                for name, words in (("ask", "Ask"), ("libraries", "Libraries"), ("frontier", "Frontier")):
                    self._tabs[name] = button(words, partial(self.go, name), f"tab tab-{name}")
            box("span", "gap")
            theme = text("button", "", "button quiet theme")
            theme.props["type"] = "button"
            theme.props["title"] = theme.props["aria-label"] = "Light, dark, or as the system"
            if visitor.session is not None:
                with box("form", "out") as form:
                    form.props["method"], form.props["action"] = "post", "/page/sign-out"
                    text("button", "Sign out", "button quiet")
        with box("p", "notice") as self._notice:
            self._words = text("span", "")
        with box("main", "views"):
            self._views: dict[str, View] = {
                "ask": AskView(visitor, partial(self.go, "libraries")),
                "libraries": LibrariesView(visitor, partial(self.go, "ask")),
                "frontier": FrontierView(visitor),
            }
        self._timer = ui.timer(SOON, self._state)

    async def begin(self) -> None:
        """Show what one sees first."""
        self._state()
        await self.go("ask")

    async def go(self, name: str, library: str | None = None) -> None:
        """Show a view, as things are now."""
        for other, view in self._views.items():
            show_if(view.place, other == name)
            self._tabs[other].props["aria-current"] = "page" if other == name else "false"
            self._tabs[other].update()
        await self._views[name].show(library)

    def _state(self) -> None:
        told = _STATES.get(self._visitor.service.state, "")
        self._words.set_text(told)
        show_if(self._notice, bool(told))
        self._timer.active = bool(told)


_STATES = {
    "starting": "The model is being loaded. Questions can be asked in a moment.",
    "draining": "The server is ending. Nothing more can be asked.",
    "failed": "The model cannot be loaded: the server's log says why.",
}
