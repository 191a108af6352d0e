"""What every registered retriever promises."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longreach.errors import InputError, SpecError
from longreach.library import Library
from longreach.search import retrievers, search
from longreach.types import Document

Opener = Callable[..., Library]
SPECS = [
    *retrievers.names(),
    "hybrid(fusion='rrf')",
    "hybrid(diversity=0.5)",
    "dense(diversity=0.3)",
    "hybrid(depth=1)",
]
ODD = [
    "",
    " ",
    '"',
    "AND OR NOT",
    "field:value^2~3",
    "(((",
    "a* ?b [c TO d]",
    "\ud800",
    "\x00",
    "日本",
    "'; DROP",
    "\\",
    "the of and",
    "é" * 5000,
]


@pytest.fixture
def library(opened: Opener) -> Library:
    library = opened()
    words = ["ant", "bee", "cat", "dog", "elk"]
    library.add_documents(
        Document(f"d{i}", " ".join(words[i % 5 :] + [f"own{i}"] * (i % 3 + 1)), f"/s/{i % 2}/{i}", {"n": i})
        for i in range(40)
    )
    return library


@pytest.mark.parametrize("spec", SPECS)
def test_hits_are_sorted_different_and_at_most_k(library: Library, spec: str) -> None:
    for k in (1, 3, 1000):
        hits = search(library, "cat own7", k, retriever=spec)
        assert 0 < len(hits) <= k
        assert len({hit.chunk.id for hit in hits}) == len(hits)
        if "diversity" not in spec:
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("spec", SPECS)
def test_a_hit_says_where_it_stands(library: Library, spec: str) -> None:
    for hit in search(library, "cat own7", 5, retriever=spec):
        assert hit.document in library.documents()
        assert library.get(hit.chunk.document_id).text[hit.chunk.start : hit.chunk.end] == hit.text
        assert hit.scores[spec.split("(")[0]] == hit.score


@pytest.mark.parametrize("spec", SPECS)
def test_the_chunk_with_the_words_of_the_question_comes_first(library: Library, spec: str) -> None:
    assert search(library, "own7", 3, retriever=spec)[0].document.id == "d7"


@pytest.mark.parametrize("spec", SPECS)
def test_filters_hold(library: Library, spec: str) -> None:
    hits = search(library, "cat dog", 50, retriever=spec, where={"n": {"gte": 10}}, under="/s/1")
    assert hits
    assert all(hit.document.metadata["n"] >= 10 and hit.document.source.startswith("/s/1/") for hit in hits)  # type: ignore[operator]
    assert search(library, "cat", 5, retriever=spec, where={"n": -1}) == []


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("query", ODD)
def test_a_question_may_hold_any_characters(library: Library, spec: str, query: str) -> None:
    retriever = retrievers.make(spec, library=library, where=None, under=None)
    assert len(retriever.retrieve(query, 3)) <= 3


@given(query=st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_no_text_is_taken_for_syntax(library: Library, query: str) -> None:
    for spec in retrievers.names():
        retrievers.make(spec, library=library, where=None, under=None).retrieve(query, 3)


@pytest.mark.parametrize("spec", SPECS)
def test_an_empty_library_has_no_hits(opened: Opener, spec: str) -> None:
    library = opened()
    assert search(library, "cat", retriever=spec) == []
    library.add_text("a", "cat")
    library.remove("a")
    assert search(library, "cat", retriever=spec) == []


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_question_is_an_error(library: Library, query: str) -> None:
    with pytest.raises(InputError, match="empty"):
        search(library, query)


def test_a_request_that_means_nothing_is_an_error(library: Library) -> None:
    with pytest.raises(InputError, match="k is 0"):
        search(library, "cat", 0)
    with pytest.raises(SpecError, match=r"known: .*hybrid"):
        search(library, "cat", retriever="hibrid")
    with pytest.raises(SpecError, match="weight"):
        search(library, "cat", retriever="hybrid(weight=2)")


def test_bm25_ranks_as_bm25s_does(opened: Opener) -> None:
    bm25s = pytest.importorskip("bm25s")
    stemmer = pytest.importorskip("Stemmer").Stemmer("english")
    subjects = ["river", "mountain", "library", "engine", "harbour", "garden"]
    texts = [
        " ".join(subjects[(i * j) % 6] for j in range(1, 2 + i % 5)) + f" place{i % 7} road{i % 4}" for i in range(60)
    ]
    library = opened()
    library.add_documents(Document(str(i), text) for i, text in enumerate(texts))
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)
    for query in ("rivers road2", "engine garden place3", "library"):
        tokens = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
        rows, scores = index.retrieve(tokens, k=60, show_progress=False)
        expected = {str(row): float(score) for row, score in zip(rows[0], scores[0], strict=True) if score > 0}
        hits = search(library, query, 60, retriever="bm25")
        assert {hit.document.id for hit in hits} == expected.keys()
        ranked = [expected[hit.document.id] for hit in hits]
        swaps = sum(later > earlier * 1.02 for earlier, later in pairwise(ranked))
        assert swaps <= len(ranked) // 10
