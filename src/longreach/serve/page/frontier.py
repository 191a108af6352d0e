"""What `longreach eval --sweep` wrote: pages that need nothing else, shown in a frame that may nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longreach.serve.keys import Key
from longreach.serve.page.elements import box, text
from longreach.serve.page.guard import PLACE
from longreach.serve.refusals import Refusal, not_found
from longreach.serve.service import Service

if TYPE_CHECKING:
    from longreach.serve.page.sessions import Visitor

FILE = "frontier.html"
POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'"
)


def frontier_files(service: Service, key: Key) -> Sequence[Path]:
    """The pages there are. Raises Refusal, 403, for a key that may not look at the server as a whole."""
    if not key.everything:
        raise Refusal(403, "a key for some libraries shows no measurements", code="no_right")
    found = [folder / FILE for folder in service.options.frontiers]
    return [file for file in found if file.is_file()]


def frontier_page(service: Service, key: Key, number: int) -> str:
    """The page `number`, from 0. Raises Refusal, 403 or 404."""
    known = frontier_files(service, key)
    if not 0 <= number < len(known):
        raise not_found(f"frontier {number}")
    return known[number].read_text(encoding="utf-8")


class FrontierView:
    """Quality, latency and memory of what was tried."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self.place = box("section", "view frontier")

    async def show(self, library: str | None = None) -> None:
        """Look again at what there is, which is of no library in particular."""
        key = await self._visitor.key()
        self.place.clear()
        with self.place:
            try:
                known = frontier_files(self._visitor.service, key)
            except Refusal as refusal:
                with box("div", "empty"):
                    text("h2", "Not for this key")
                    text("p", str(refusal))
                return
            if not known:
                _nothing()
            for at, file in enumerate(known):
                text("h2", file.parent.name, "name")
                frame = box("iframe", "frame")
                frame.props["src"] = f"{PLACE}/frontier/{at}"
                frame.props["sandbox"] = "allow-scripts"
                frame.props["title"] = "Quality against latency and memory"


def _nothing() -> None:
    with box("div", "empty"):
        text("h2", "Nothing measured yet")
        text("p", "A sweep tries many configurations on your questions and draws what each costs and how good it is:")
        text("pre", 'longreach eval LIBRARY questions.jsonl --sweep "k=4..32;answer=rank_spans,generate"')
        text("p", "Start the server where it wrote, or name the folder: longreach serve --frontier DIR")
