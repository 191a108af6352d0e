"""Counting tokens."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.errors import ModelError
from longreach.tokens import Tokenizer, count_many

DATA = Path(os.environ.get("LONGREACH_DATA", Path(__file__).parents[2] / "shared" / "data"))
STORIES = DATA.parent / "models" / "stories260k" / "tokenizer.json"
needs_stories = pytest.mark.skipif(not STORIES.is_file(), reason="the evaluation data are not here")


def words_file(folder: Path, **changes: object) -> Path:
    """A tokenizer of four words, as a file."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors

    backend = Backend(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "<s>": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(backend.to_str()) | changes))
    return path


def test_nothing_is_cut_off_padded_or_added(tmp_path):
    count = Tokenizer.from_file(words_file(tmp_path))
    assert [count(text) for text in ("", "a", "a b a b a", "zebra a")] == [0, 1, 5, 2]


def test_many_counts_as_one_by_one(tmp_path):
    count = Tokenizer.from_file(words_file(tmp_path))
    texts = ["a " * (number % 7) for number in range(5000)]
    assert count.many(texts) == [count(text) for text in texts] == count_many(count, texts)


def test_any_function_counts_many():
    assert count_many(len, ["", "ab"]) == [0, 2]


@needs_stories
@given(st.text())
def test_counts_equal_the_encodings_of_a_real_tokenizer(text):
    count = Tokenizer.from_file(STORIES)
    assert count(text) == len(count.backend.encode(text, add_special_tokens=False).ids) == count.many([text])[0]


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_missing_or_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.from_file(path)
