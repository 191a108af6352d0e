"""Filters on metadata and source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.errors import InputError
from longreach.library import Library
from longreach.library.filters import Under, condition
from longreach.types import Document

Opener = Callable[..., Library]


@pytest.fixture
def library(opened: Opener) -> Library:
    library = opened()
    library.add_documents(
        [
            Document("a", "fish one", "/docs/a.md", {"year": 2019, "kind": "memo", "draft": True}),
            Document("b", "fish two", "/docs/deep/b.md", {"year": 2021.5, "kind": "paper"}),
            Document("c", "fish three", "/docs2/c.md", {"year": "2021", "kind": "x'); DROP TABLE documents; --"}),
            Document("d", "fish four", "/docs/d.md", {'we"ird key': "\ud800", "year": 2**70}),
        ]
    )
    return library


@pytest.mark.parametrize(
    ("where", "under", "found"),
    [
        (None, None, "abcd"),
        ({}, None, "abcd"),
        ({"kind": "memo"}, None, "a"),
        ({"kind": ["memo", "paper"]}, None, "ab"),
        ({"kind": []}, None, ""),
        ({"draft": True}, None, "a"),
        ({"year": 2019}, None, "a"),
        ({"year": "2021"}, None, "c"),
        ({"year": {"gte": 2019, "lt": 2022}}, None, "ab"),
        ({"year": {"gt": 10**6}}, None, "d"),
        ({"year": {"gt": "2020"}}, None, "c"),
        ({"kind": "paper", "year": {"lte": 2021}}, None, ""),
        ({"kind": "x'); DROP TABLE documents; --"}, None, "c"),
        ({'we"ird key': "\ud800"}, None, "d"),
        ({"unknown": 1}, None, ""),
        (None, "/docs", "abd"),
        (None, "/docs/", "abd"),
        (None, "/docs/a.md", "a"),
        ({"kind": "paper"}, "/docs/deep", "b"),
        (None, "/doc", ""),
        (None, ["/docs/deep", "/docs2"], "bc"),
        (None, [], ""),
        (None, "%", ""),
    ],
)
def test_documents_and_hits_meet_the_filter(library: Library, where: Any, under: Under, found: str) -> None:
    assert "".join(info.id for info in library.documents(where, under)) == found
    for retriever in ("bm25", "dense", "hybrid"):
        hits = library.search("fish", retriever=retriever, where=where, under=under)
        assert "".join(sorted(hit.document.id for hit in hits)) == found


@pytest.mark.parametrize(
    "where", [{"a": {}}, {"a": {"like": "x"}}, {"a": None}, {"a": {"gt": None}}, {"a": [None]}, {1: 2}]
)
def test_a_filter_that_means_nothing_is_an_error(library: Library, where: Any) -> None:
    with pytest.raises(InputError, match="filter"):
        library.documents(where)


scalars = st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans()


@given(
    st.dictionaries(
        st.text(), scalars | st.lists(scalars) | st.dictionaries(st.sampled_from(["gt", "lte"]), scalars, min_size=1)
    )
)
def test_no_value_reaches_the_sql(where: Any) -> None:
    test, values = condition(where, None)
    assert test.count("?") == len(values)
    assert set(test) <= set("ordinalINSELECTFROMmetadataWHEREkeyvaluetypeofblobAND() =?<>',1")


def test_a_wide_filter_finds_what_a_narrow_one_would(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened()
    library.add_documents(Document(f"d{i}", f"fish w{i % 7} w{i % 11} x{i}", "", {"odd": i % 2}) for i in range(90))
    within = [library.search("fish w3 w5", 8, retriever=name, where={"odd": 1}) for name in ("bm25", "dense")]
    monkeypatch.setattr("longreach.library.view._RUNS", 3)
    after = [library.search("fish w3 w5", 8, retriever=name, where={"odd": 1}) for name in ("bm25", "dense")]
    for one, other in zip(within, after, strict=True):
        assert len(other) == 8
        assert all(hit.document.metadata["odd"] == 1 for hit in other)
        assert [hit.score for hit in other] == pytest.approx([hit.score for hit in one])
