"""Files on their way into a library."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from longreach.serve.bodies.libraries import UploadBody
from longreach.serve.page.elements import box, button, complaints, show_if, tell, text
from longreach.serve.page.figures import size
from longreach.serve.routes import documents

if TYPE_CHECKING:
    from nicegui.element import Element

    from longreach.serve.page.sessions import Visitor

EVERY = 0.5
"""Seconds between two looks at what is on its way."""
SHOWN = 20
"""Uploads on their way, and failed ones, that are shown at most."""
_SENT = "sent"
"""Stands for an upload that nobody looked at yet: what is small may be indexed by then."""
STATES = {"queued": "waits", "reading": "is read", "indexing": "is indexed", "failed": "failed"}
DROP = """<div class="drop" tabindex="0" role="button" aria-label="Choose files to add"
  @keydown.enter="props.pickFiles" @keydown.space.prevent="props.pickFiles">
  <q-uploader-add-trigger></q-uploader-add-trigger>
  <b>Drop files here</b><span>or choose them. PDF, Word, PowerPoint, Excel, EPUB, HTML, Markdown, text, code.</span>
</div>"""


class Uploads:
    """A place to drop files, and how far those are that were dropped. `changed` is called when one has ended."""

    def __init__(
        self, visitor: Visitor, library: str, changed: Callable[[], Awaitable[None]], may_change: bool
    ) -> None:
        from nicegui import ui

        self._visitor = visitor
        self._library = library
        self._changed = changed
        self._unfinished: set[str] = set()
        self._dismissed: set[str] = set()
        self._states: list[tuple[str, str]] = []
        self._fills: dict[str, Element | None] = {}
        self.place = box("div", "uploads")
        with self.place:
            if may_change:
                most = visitor.service.options.upload_bytes
                drop = ui.upload(multiple=True, auto_upload=True, max_file_size=most)
                drop.classes("uploader").props("flat field-name=file")
                drop.on_rejected(lambda: tell(f"a file may have {size(most)}", bad=True))
                drop.props["url"] = f"/uploads/{library}/documents"
                drop.add_slot("header", DROP)
                drop.on("uploaded", self._sent, args=[])
                drop.on("failed", self._failed, js_handler=_FAILED)
                drop.on("finish", lambda _: drop.reset(), args=[])
            self._rows = box("ul", "rows")
            self._timer = ui.timer(EVERY, self.look, active=False)

    async def look(self) -> None:
        """See how far they are."""
        service = self._visitor.service
        with complaints(service, self.place):
            told = (await documents.uploads(self._library, service, await self._visitor.key())).uploads
            if self.place.is_deleted:
                return
            under_way = [one for one in told if one.status not in ("done", "failed")]
            latest = {one.document: one for one in reversed(told)}.values()
            failed = [one for one in latest if one.status == "failed" and one.id not in self._dismissed]
            ended = self._unfinished - {one.id for one in under_way}
            self._unfinished = {one.id for one in under_way}
            self._timer.active = bool(under_way)
            show_if(self._rows, bool(under_way or failed))
            self._draw([*under_way[:SHOWN], *failed[:SHOWN]])
            if ended:
                await self._changed()

    def _draw(self, shown: Sequence[UploadBody]) -> None:
        """Anew where something else is shown; else only how far it is."""
        states: list[tuple[str, str]] = [(one.id, one.status) for one in shown]
        if states != self._states:
            self._states = states
            self._rows.clear()
            with self._rows:
                self._fills = {one.id: self._row(one) for one in shown}
        for one in shown:
            fill = self._fills[one.id]
            if fill is not None and one.progress:
                fill.classes(remove="unknown").style(f"width: {100 * one.progress:.0f}%")

    def _row(self, one: UploadBody) -> Element | None:
        with box("li", f"upload {one.status}"):
            text("span", one.document, "name")
            text("span", f"{size(one.bytes)} · {STATES.get(one.status, one.status)}", "where")
            if one.status == "failed":
                text("span", one.reason, "reason")
                button("✕", lambda: self._dismiss(one.id), "quiet small", hint="Hide this")
                return None
            with box("span", "track") as track:
                track.props["role"] = "progressbar"
                track.props["aria-label"] = STATES.get(one.status, one.status)
                return box("span", "fill unknown")

    async def _dismiss(self, identity: str) -> None:
        self._dismissed.add(identity)
        await self.look()

    def _sent(self, _: Any) -> None:
        self._unfinished.add(_SENT)
        self._timer.active = True

    def _failed(self, event: Any) -> None:
        name, answer = (str(one) for one in event.args)
        with self.place:
            tell(f"{name}: {_reason(answer)}", bad=True)


_FAILED = "(info) => emit(info.files[0]?.name ?? '', info.xhr?.responseText ?? '')"


def _reason(answer: str) -> str:
    """Why an upload was refused, out of the answer to it."""
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "it could not be sent"
