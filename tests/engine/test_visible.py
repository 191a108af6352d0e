from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from longreach.engine.visible import BROKEN, Visible

texts = st.text(alphabet="ab\né🙂", max_size=30)
stops = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3)


def run(data: bytes, cuts: list[int], stop: list[str]) -> tuple[list[str], Visible]:
    """Show `data` as it grows at `cuts`, as a decoder of bytes would."""
    visible = Visible(stop)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    pieces = [visible.update(data[:end].decode("utf-8", "replace"), final=end == ends[-1]) for end in ends]
    return pieces, visible


@given(texts, st.lists(st.integers(0, 60), max_size=20), stops)
@example("aab", [1, 2], ["ab"])
def test_pieces_make_the_text_before_the_first_stop_however_it_is_cut(
    text: str, cuts: list[int], stop: list[str]
) -> None:
    pieces, visible = run(text.encode(), cuts, stop)
    # What a stop string matches first when the text is looked at as it grows is what ends first, then starts first.
    shown = "".join(pieces)
    assert shown == visible.text
    assert text.startswith(shown)
    assert not any(s in shown for s in stop)
    assert visible.stopped == any(s in text for s in stop)
    if not visible.stopped:
        assert shown == text
    assert not any(BROKEN in piece for piece in pieces)


@given(texts, stops)
def test_only_what_may_become_a_stop_string_is_held(text: str, stop: list[str]) -> None:
    visible = Visible(stop)
    for end in range(len(text) + 1):
        visible.update(text[:end])
        if visible.stopped:
            break
        held = text[len(visible.text) : end]
        assert not held or any(s.startswith(held) for s in stop)


def test_a_character_that_never_becomes_whole_is_shown_at_the_end() -> None:
    pieces, visible = run(b"ab\xf0\x9f", [1, 2, 3], [])
    assert "".join(pieces) == visible.text == "ab" + BROKEN


def test_nothing_comes_after_a_stop_string() -> None:
    visible = Visible(["b"])
    assert visible.update("ab") == "a"
    assert visible.update("abc", final=True) == ""
    assert visible.text == "a"


@given(texts, texts, stops)
def test_what_is_passed_over_is_shown_at_once_and_never_searched(first: str, second: str, stop: list[str]) -> None:
    visible = Visible(stop)
    assert visible.pass_over(first) == first
    visible.update(first + second, final=True)
    ends = [at for at in (second.find(s) for s in stop) if at >= 0]
    assert visible.text == first + second[: min(ends, default=len(second))]
    assert visible.stopped == bool(ends)


def test_half_a_character_is_not_passed_over() -> None:
    visible = Visible()
    assert visible.pass_over("a" + BROKEN) == "a"
    assert visible.pass_over("aé") == "é"
    assert visible.pass_over("aé" + BROKEN, final=True) == BROKEN
