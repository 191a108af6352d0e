"""An answer as it is shown: its text with marks, what it cites, what was read for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from longreach.serve.page.elements import box, button, text
from longreach.serve.page.figures import place
from longreach.serve.page.marks import marked
from longreach.serve.page.window import Part
from longreach.types import Answer, Citation, Hit, Passage

Open: TypeAlias = Callable[[str, Part, Part], Awaitable[None]]
"""Shows a quote of a document, and the passage around it."""


def draw_answer(answer: Answer, open_source: Open) -> None:
    """The checked text, every mark a button that opens its source."""
    actions = [_action(answer, citation, open_source) for citation in answer.citations]
    with box("div", f"answer {'' if answer.found else 'none'}"), box("p"):
        for piece in marked(answer.text, [citation.quote for citation in answer.citations]):
            if isinstance(piece, str):
                text("span", piece)
            else:
                citation = answer.citations[piece - 1]
                hint = f"Citation {piece}: {citation.document}, {place(citation.place)}"
                button(str(piece), actions[piece - 1], "cite opens", hint=hint)
    if answer.citations:
        with box("ol", "citations"):
            for number, (citation, action) in enumerate(zip(answer.citations, actions, strict=True), 1):
                with box("li"), box("button", "card opens") as card:
                    card.props["type"] = "button"
                    card.on("click", partial(_done, action), args=[])
                    with box("div", "head"):
                        text("span", str(number), "number")
                        text("span", citation.document, "name")
                        text("span", place(citation.place), "where")
                    text("q", citation.quote, "quoted")


def draw_passages(title: str, passages: Sequence[Passage], open_source: Open) -> None:
    """Passages in the order of the prompt, with the scores of the search."""
    if not passages:
        return
    with box("section", "passages"):
        text("h3", title)
        best = max(passage.hit.score for passage in passages)
        with box("ol"):
            for passage in passages:
                with box("li"):
                    _passage(passage.hit, passage.hit.score / best if best > 0 else 0.0, open_source)


def _passage(hit: Hit, share: float, open_source: Open) -> None:
    chunk = hit.chunk
    part = Part(chunk.start, chunk.end)
    with box("button", "card opens") as card:
        card.props["type"] = "button"
        card.on(
            "click",
            partial(_done, partial(open_source, chunk.document_id, Part(chunk.start, chunk.start), part)),
            args=[],
        )
        with box("div", "head"):
            text("span", chunk.document_id, "name")
            where = [f"page {chunk.page}"] if chunk.page is not None else []
            text("span", " · ".join([*where, *([" › ".join(chunk.section)] if chunk.section else [])]), "where")
            with box("span", "score") as score:
                score.props["title"] = " · ".join(f"{name} {value:.3f}" for name, value in hit.scores.items())
                with box("span", "track"):
                    box("span", "fill").style(f"width: {100 * max(0.0, min(1.0, share)):.0f}%")
                text("span", f"{hit.score:.3f}", "value")
        text("span", chunk.text, "excerpt")
        if hit.scores:
            text("span", " · ".join(f"{name} {value:.3f}" for name, value in hit.scores.items()), "stages")


def _action(answer: Answer, citation: Citation, open_source: Open) -> Callable[[], Awaitable[None]]:
    quote = Part(citation.start, citation.end)
    chunk = next((p.chunk for p in answer.passages if p.number == citation.passage), None)
    passage = quote if chunk is None else Part(chunk.start, chunk.end)
    return partial(open_source, citation.document, quote, passage)


async def _done(action: Callable[[], Awaitable[None]], _: object = None) -> None:
    await action()
