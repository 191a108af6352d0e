"""Ask, and see the answer come, with what it rests on."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from longreach.reader import Found
from longreach.serve.bodies.asking import AskRequest
from longreach.serve.page.answer import draw_answer, draw_passages
from longreach.serve.page.elements import box, button, complaints, show_if, tell, text
from longreach.serve.page.figures import counted, sound
from longreach.serve.page.meter import draw_meter
from longreach.serve.page.questions import answers
from longreach.serve.page.source import SourcePanel
from longreach.serve.page.window import Part
from longreach.serve.refusals import Refusal
from longreach.serve.routes import libraries
from longreach.types import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from longreach.serve.page.sessions import Visitor

WAYS = {"auto": "Suited to the model", "rank_spans": "Words of the source", "generate": "In the model's words"}


class AskView:
    """One question at a time. `to_libraries` shows the other view, for whoever has nothing to ask yet."""

    def __init__(self, visitor: Visitor, to_libraries: Callable[[], Awaitable[None]]) -> None:
        from nicegui import ui

        self._visitor = visitor
        self._to_libraries = to_libraries
        self._task: asyncio.Task[Any] | None = None
        self.place = box("section", "view ask")
        with self.place:
            with box("div", "column"):
                with box("form", "box") as form:
                    form.on("submit", js_handler="(event) => event.preventDefault()")
                    self._question = ui.textarea().props("autogrow borderless maxlength=20000").classes("question")
                    self._question.props["aria-label"] = "Question"
                    self._question.props["placeholder"] = "Ask your documents"
                    with box("div", "controls"):
                        self._library = ui.select([], on_change=self._chosen).props("dense borderless options-dense")
                        self._library.classes("choice library").props["aria-label"] = "Library"
                        self._way = ui.select(WAYS, value="auto").props("dense borderless options-dense")
                        self._way.classes("choice way").props["aria-label"] = "How to answer"
                        box("span", "gap")
                        self._stop = button("Stop", self._end, "stop")
                        self._ask = button("Ask", self.ask, "main go", hint="Ask (Enter)")
                self._status = text("p", "", "status")
                self._status.props["aria-live"] = "polite"
                self._written = text("p", "", "written")
                self._result = box("div", "result")
                self._empty = box("div", "empty")
            self._source = SourcePanel(visitor)
        show_if(self._stop, False)
        show_if(self._written, False)
        self.place.client.on_disconnect(self._end)

    async def show(self, library: str | None = None) -> None:
        """Look again at which libraries there are; choose one."""
        service = self._visitor.service
        with complaints(service, self.place):
            key = await self._visitor.key()
            known = (await libraries.list_libraries(service, key)).libraries
            chosen = library or self._library.value
            self._library.set_options(known, value=chosen if chosen in known else next(iter(known), None))
            show_if(self._library, bool(known))
            await self._newcomer()

    async def ask(self) -> None:
        """Ask what was typed; what is being answered is left alone."""
        service = self._visitor.service
        try:
            asked_for = _request(self._question.value, self._way.value)
        except Refusal as refusal:  # what was answered before stays
            with self.place:
                tell(str(refusal), bad=True)
            return
        self._end()
        self._task = asyncio.current_task()
        self._source.close()
        self._result.clear()
        self._written.set_text("")
        self._busy(True)
        show_if(self._empty, False)
        self._status.set_text("Searching")
        try:
            with complaints(service, self.place):
                await self._answer(str(self._library.value or ""), asked_for)
        finally:
            if self._task is asyncio.current_task():
                self._task = None
                self._status.set_text("")
                self._busy(False)

    async def _answer(self, library: str, asked_for: AskRequest) -> None:
        opened = partial(self._source.open, library)
        written = ""
        async with contextlib.aclosing(answers(self._visitor, library, asked_for)) as events:
            async for event in events:
                if isinstance(event, Found):
                    self._status.set_text(_reading(len(event.passages)))
                elif isinstance(event, Answer):
                    show_if(self._written, False)
                    self._draw(event, opened)
                elif event:
                    written += event
                    if not self._written.visible:
                        show_if(self._written, True)
                        self._status.set_text("Writing · not checked yet")
                    self._written.set_text(sound(written))

    def _draw(self, answer: Answer, opened: Callable[[str, Part, Part], Awaitable[None]]) -> None:
        with self._result:
            draw_answer(answer, opened)
            if not answer.found:
                text(
                    "p",
                    "What was read does not support an answer. Ask in other words, or look at what was read.",
                    "note",
                )
            draw_meter(answer)
            draw_passages(f"Read for this answer: {counted(len(answer.passages), 'passage')}", answer.passages, opened)

    def _end(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            self._task = None
            if not self.place.client.is_deleted:
                self._status.set_text("")
                self._busy(False)

    def _busy(self, busy: bool) -> None:
        show_if(self._stop, busy)
        show_if(self._ask, not busy)
        if not busy:
            show_if(self._written, False)

    async def _chosen(self) -> None:
        with complaints(self._visitor.service, self.place):
            await self._newcomer()

    async def _newcomer(self) -> None:
        """Say what to do where there is nothing to ask yet, or nothing was asked."""
        service, key = self._visitor.service, await self._visitor.key()
        library = self._library.value
        stats = None if library is None else await libraries.look(library, service, key)
        if library != self._library.value:
            return
        self._empty.clear()
        show_if(self._empty, self._task is None and not self._result.default_slot.children)
        with self._empty:
            if stats is None:
                text("h2", "Start with a library")
                text("p", "A library holds documents that you ask questions about.")
                if key.write:
                    text("p", "Make one, drop your files into it, and come back here with a question.")
                    button("Make a library", self._to_libraries, "main")
                else:
                    text(
                        "p",
                        "Your key may ask, and there is nothing to be asked yet. Whoever runs this server can help.",
                    )
            elif not stats.documents:
                text("h2", "This library is empty")
                text("p", "PDF, Word, PowerPoint, Excel, EPUB, HTML, Markdown, text and source code can be read.")
                if key.write and stats.writable:
                    button("Add documents", self._to_libraries, "main")
            else:
                text("h2", "Ask a question")
                what = f"{counted(stats.documents, 'document')}, {counted(stats.chunks, 'passage')}"
                text("p", f"The answer comes from {what}, and every statement shows the words it rests on.")
                with box("p", "keys"):
                    for stroke, meaning in (("/", "question"), ("Enter", "ask"), ("Esc", "close the source")):
                        text("kbd", stroke)
                        text("span", meaning)


def _request(question: str | None, way: str) -> AskRequest:
    """What was typed as a request. Raises Refusal."""
    typed = (question or "").strip()
    if not typed:
        raise Refusal(400, "type a question first", code="invalid_value")
    try:
        return AskRequest(question=typed, answer=way)  # type: ignore[arg-type]  # it is checked there
    except ValidationError:
        raise Refusal(400, "the question is too long", code="invalid_value") from None


def _reading(passages: int) -> str:
    return f"Reading {counted(passages, 'passage')}" if passages else "Nothing was found"
