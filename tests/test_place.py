"""Where a character stands."""

from __future__ import annotations

from longreach.types import Anchor, Document, Place


def test_pages_sections_and_lines_hold_until_the_next_anchor():
    anchors = (
        Anchor("heading", 2, "A", 1),
        Anchor("page", 4, "1"),
        Anchor("heading", 5, "B", 3),
        Anchor("heading", 7, "C", 2),
        Anchor("page", 9, "2"),
        Anchor("heading", 9, "D", 1),
    )
    document = Document("d", "a\nbcd\nfghij\n", anchors=anchors)
    assert document.place(0) == Place(None, (), 1)
    assert document.place(3) == Place(None, ("A",), 2)
    assert document.place(6) == Place(1, ("A", "B"), 3)
    assert document.place(8) == Place(1, ("A", "C"), 3)
    assert document.place(9) == Place(2, ("D",), 3)
    assert document.place(12) == Place(2, ("D",), 4)


def test_a_document_without_anchors_has_lines():
    assert str(Document("d", "one\ntwo").place(4)) == "line 2"
