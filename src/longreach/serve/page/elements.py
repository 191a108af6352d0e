"""What views are made of. All text reaches the browser as text, never as markup."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from longreach.errors import LongreachError
from longreach.serve.page.figures import sound
from longreach.serve.refusals import refusal_for

if TYPE_CHECKING:
    from nicegui.element import Element
    from nicegui.elements.mixins.text_element import TextElement

    from longreach.serve.service import Service

Action: TypeAlias = "Callable[[], Awaitable[None] | None]"


def box(tag: str, classes: str = "") -> Element:
    """An element that holds others."""
    from nicegui.element import Element

    return Element(tag).classes(classes)


def text(tag: str, words: str, classes: str = "") -> TextElement:
    """An element that holds text."""
    from nicegui.elements.mixins.text_element import TextElement

    return TextElement(tag=tag, text=sound(words)).classes(classes)


def button(words: str, action: Action, classes: str = "", *, hint: str = "") -> TextElement:
    """A button; `hint` is what it is called where `words` say too little."""
    made = text("button", words, f"button {classes}")
    made.props["type"] = "button"
    if hint:
        made.props["aria-label"] = made.props["title"] = sound(hint)
    made.on("click", lambda _: action(), args=[])
    return made


def show_if(element: Element, shown: bool) -> None:
    """Show or hide an element."""
    element.set_visibility(shown)


def tell(message: str, *, bad: bool = False) -> None:
    """Say something that goes away by itself."""
    from nicegui import ui

    ui.notify(sound(message), type="negative" if bad else None, position="bottom", timeout=8000 if bad else 3000)


async def sure(place: Element, question: str, more: str) -> bool:
    """Whether somebody says, in a dialog in `place`, that something shall be deleted."""
    from nicegui import ui

    with place, ui.dialog() as dialog, box("div", "dialog"):
        text("h2", question)
        text("p", more)
        with box("div", "controls"):
            button("Keep it", partial(dialog.submit, False), "quiet")
            button("Delete it", partial(dialog.submit, True), "main danger")
    said = bool(await dialog)
    dialog.delete()
    return said


@contextmanager
def complaints(service: Service, place: Element) -> Iterator[None]:
    """Tell in `place` what goes wrong, in the words that a program would be told; who is not signed in any more is sent
    to where he can."""
    from nicegui import ui

    try:
        yield
    except Exception as error:
        refusal = refusal_for(error)
        if not isinstance(error, LongreachError):
            service.log.error("the page failed", exc_info=error)
        if place.is_deleted or place.client.is_deleted:
            return
        with place:
            if refusal.status == 401:
                ui.navigate.to("/sign-in")
            else:
                tell(str(refusal), bad=True)
