"""Any sequence of adding, changing and removing leaves the library equal to a dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hashed import open_hashed
from longreach.types import Document

IDS = st.sampled_from(["a", "b", "c", "é/\ud800"])
WORDS = ["ant", "bee", "cat", "dog", "elk", "fox"]
TEXTS = st.lists(st.sampled_from([*WORDS, "\n\n", "\ud83d", "日本"]), max_size=60).map(" ".join)


class LibraryStates(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.library = open_hashed(self.folder / "library")
        self.model: dict[str, tuple[str, int]] = {}

    @rule(documents=st.lists(st.tuples(IDS, TEXTS, st.integers(0, 2)), max_size=4))
    def add(self, documents: list[tuple[str, str, int]]) -> None:
        self.library.add_documents(Document(id, text, "", {"n": n}) for id, text, n in documents)
        self.model.update({id: (text, n) for id, text, n in documents})

    @rule(ids=st.lists(IDS, max_size=3))
    def remove(self, ids: list[str]) -> None:
        report = self.library.remove(ids)
        assert report.removed == len(set(ids) & set(self.model))
        for id in ids:
            self.model.pop(id, None)

    @rule()
    def reopen(self) -> None:
        self.library.close()
        self.library = open_hashed(self.folder / "library")

    @rule(word=st.sampled_from(WORDS), n=st.none() | st.integers(0, 2))
    def search(self, word: str, n: int | None) -> None:
        where = None if n is None else {"n": n}
        hits = self.library.search(word, 1000, retriever="bm25", where=where)
        expected = {id for id, (text, m) in self.model.items() if word in text.split() and n in (None, m)}
        assert {hit.document.id for hit in hits} == expected
        near = self.library.search(word, 1000, retriever="dense", where=where)
        assert {hit.document.id for hit in near} == {
            id for id, (text, m) in self.model.items() if text.split() and n in (None, m)
        }
        for hit in [*hits, *near]:
            assert self.model[hit.document.id][0][hit.chunk.start : hit.chunk.end] == hit.text

    @invariant()
    def documents_are_those_of_the_model(self) -> None:
        assert {info.id: info.metadata["n"] for info in self.library.documents()} == {
            id: n for id, (_, n) in self.model.items()
        }
        for id, (text, _) in self.model.items():
            assert self.library.get(id).text == text

    def teardown(self) -> None:
        self.library.close()
        shutil.rmtree(self.folder)


TestLibraryStates = pytest.mark.thorough(LibraryStates.TestCase)
TestLibraryStates.settings = settings(
    max_examples=10, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
)
