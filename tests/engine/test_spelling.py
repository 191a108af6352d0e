from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.engine.paged import PagedEngine
from longreach.engine.spelling import SETTLED, Spelling
from longreach.model.embedded import ensure

TEXTS = [
    "Once upon a time",
    "naïve café — 東京 🏛️🎉",
    "a  b\n\n\tc",
    "👩‍👩‍👧 family",
    "x" * 40,
    " lead",
    "\u0000 \u200d",
]


def check(decode: Any, tokens: list[int]) -> None:
    spelling = Spelling(decode)
    for n in range(1, len(tokens) + 1):
        assert spelling.of(tokens[:n]) == decode(tokens[:n])


@given(ids=st.lists(st.integers(0, 511), max_size=120))
@settings(max_examples=40, deadline=None)
def test_tokens_spell_what_they_spell_together(ids: list[int], storyteller: PagedEngine) -> None:
    check(storyteller.decode, ids)


@given(texts=st.lists(st.sampled_from(TEXTS), max_size=12), ids=st.lists(st.integers(0, 49151), max_size=60))
@settings(max_examples=40, deadline=None)
def test_of_any_text_and_any_tokens(texts: list[str], ids: list[int], tokenizer: Any) -> None:
    def decode(some: Any) -> str:
        return str(tokenizer.decode(list(some), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    check(decode, [*tokenizer("".join(texts))["input_ids"], *ids])


def test_only_the_last_tokens_are_spelt_anew() -> None:
    longest = 0

    def decode(tokens: Any) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return "".join(chr(97 + token % 26) for token in tokens)

    check_tokens = list(range(500))
    spelling = Spelling(decode)
    for n in range(1, 501):
        assert len(spelling.of(check_tokens[:n])) == n
    assert longest <= 2 * SETTLED + 1


@pytest.fixture(scope="module")
def tokenizer(embedded_cache: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ensure(cache=embedded_cache))
