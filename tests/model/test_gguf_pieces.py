"""Gemma's pieces are merged as SentencePiece merges them: of two neighbours, whose piece has the highest score."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from longreach.model.gguf_pieces import NORMAL, build_pieces, knows_pieces, merges_of

PIECES = ("a", "b", "c", "▁", "ab", "bc", "▁a", "abc", "▁ab", "ca", "▁▁")
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "\n\n")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


class File:
    """A GGUF file with nothing but a tokenizer in it."""

    architecture = "gemma3"

    def __init__(self, **more: Any) -> None:
        tokens = [*SPECIAL, *BYTES, *PIECES]
        self.told = {
            "model": "llama",
            "add_space_prefix": False,
            "tokens": tokens,
            "scores": [-1000.0] * 5 + [0.0] * 256 + [-float(at) for at in range(len(PIECES))],
            "token_type": [3] * 4 + [4] + [6] * 256 + [1] * len(PIECES),
            "bos_token_id": 2,
            "unknown_token_id": 3,
            "add_bos_token": True,
            **more,
        }

    def get(self, key: str, default: Any = None) -> Any:
        return self.told.get(key.removeprefix("tokenizer.ggml."), default)

    need = get


def by_hand(text: str, file: File) -> list[str]:
    """The definition: again and again the neighbours whose piece has the highest score, the leftmost of equals."""
    scores = {piece: -at for at, piece in enumerate(PIECES)}
    parts = list(text.replace(" ", "▁"))
    while True:
        found = [(scores[a + b], -at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not found:
            return parts
        at = -max(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(st.text("abc ", min_size=1, max_size=12))
def test_text_is_cut_as_the_scores_say(text: str) -> None:
    file: Any = File()
    assert build_pieces(file).encode(text).tokens == ["<bos>", *by_hand(text, file)]


@given(st.text("abc é🦜\n\t", max_size=12))
def test_what_no_piece_spells_is_spelt_in_bytes_and_comes_back(text: str) -> None:
    tokenizer = build_pieces(File())  # type: ignore[arg-type]
    encoded = tokenizer.encode(text)
    assert "<unk>" not in encoded.tokens
    assert tokenizer.decode(encoded.ids) == text


def test_what_a_user_defined_is_found_whole_and_begins_with_bos_only_where_the_file_says_so() -> None:
    file: Any = File(add_bos_token=False)
    assert build_pieces(file).encode("a\n\nb").tokens == ["a", "\n\n", "b"]
    assert knows_pieces(file)
    assert not knows_pieces(File(add_space_prefix=True))  # type: ignore[arg-type]


def test_pairs_come_by_the_score_of_what_they_make() -> None:
    assert merges_of(["a", "b", "ab", "ba", "aba"], [0.0, -1.0, -3.0, -2.0, -4.0], [NORMAL] * 5) == [
        ("b", "a"),
        ("a", "b"),
        ("a", "ba"),
        ("ab", "a"),
    ]
