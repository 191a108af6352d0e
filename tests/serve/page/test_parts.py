"""What the views are made from: windows of documents, marks, figures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longreach.serve.page.figures import size, sound, span
from longreach.serve.page.marks import marked
from longreach.serve.page.spent import shares
from longreach.serve.page.window import Part, around, cut
from longreach.types import Anchor, Document, Usage

TEXT = st.text(st.sampled_from("ab \n§"), max_size=200)


@st.composite
def parts(draw: st.DrawFn, text: str) -> Part:
    start = draw(st.integers(0, len(text)))
    return Part(start, draw(st.integers(start, len(text))))


@given(TEXT, st.lists(TEXT, max_size=4))
def test_a_marked_answer_is_the_answer_with_every_number_once(text: str, quotes: list[str]) -> None:
    pieces = marked(text, quotes)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == text
    assert sorted(piece for piece in pieces if isinstance(piece, int)) == list(range(1, len(quotes) + 1))


def test_a_mark_stands_behind_its_words_or_at_the_end() -> None:
    assert marked("It is 25 Nm, cold.", ["25 Nm", "other words"]) == ["It is 25 Nm", 1, ", cold.", 2]


@given(st.data())
def test_a_window_shows_its_part_of_the_document_and_nothing_else(data: st.DataObject) -> None:
    text = data.draw(TEXT)
    offsets = sorted(set(data.draw(st.lists(st.integers(0, len(text)), max_size=6))))
    kinds = data.draw(st.lists(st.sampled_from(["page", "heading"]), min_size=len(offsets), max_size=len(offsets)))
    anchors = [Anchor(kind, at, str(n), 1) for n, (at, kind) in enumerate(zip(offsets, kinds, strict=True))]  # type: ignore[arg-type]
    shown, quote, passage = data.draw(parts(text)), data.draw(parts(text)), data.draw(parts(text))
    pieces = cut(Document("d", text, anchors=anchors), shown, quote, passage)
    assert "".join(piece.text for piece in pieces if piece.kind != "page") == text[shown.start : shown.end]
    quoted = "".join(piece.text for piece in pieces if piece.kind == "quote")
    assert quoted == text[max(shown.start, quote.start) : max(shown.start, min(shown.end, quote.end))]
    pages = [anchor.label for anchor in anchors if anchor.kind == "page" and shown.start <= anchor.offset < shown.end]
    assert [piece.text for piece in pieces if piece.kind == "page"] == pages


@given(st.data())
def test_a_window_holds_what_it_is_around(data: st.DataObject) -> None:
    text = data.draw(TEXT)
    part = data.draw(parts(text))
    before, behind = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
    found = around(text, part.start, part.end, before, behind)
    assert 0 <= found.start <= max(0, part.start - before)
    assert min(len(text), part.end + behind) <= found.end <= len(text)


def test_a_heading_is_its_line() -> None:
    document = Document("d", "Intro\nBolts\nThe limit.", anchors=[Anchor("heading", 6, "Bolts", 1)])
    pieces = cut(document, Part(0, 22), Part(12, 22), Part(0, 0))
    assert [(piece.text, piece.heading) for piece in pieces] == [
        ("Intro\n", False),
        ("Bolts", True),
        ("\n", False),
        ("The limit.", False),
    ]


def test_the_shares_of_a_prompt_are_the_prompt() -> None:
    told = shares(Usage(prompt_tokens=100, reused_tokens=70, loaded_tokens=20, recomputed_tokens=5))
    assert (told.held, told.loaded, told.computed, told.recomputed, told.prompt) == (50, 20, 30, 5, 100)


def test_figures_read_well() -> None:
    assert [size(n) for n in (0, 999, 1000, 123_456, 2_500_000_000)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "123 kB",
        "2.5 GB",
    ]
    assert [span(s) for s in (0.0104, 0.9994, 0.9999, 12.34)] == ["10 ms", "999 ms", "1.0 s", "12.3 s"]


@given(st.text())
def test_text_is_made_fit_for_a_browser_without_moving_a_character(text: str) -> None:
    shown = sound(text)
    assert len(shown) == len(text)
    shown.encode()
    assert all(c >= " " or c in "\t\n" for c in shown)
