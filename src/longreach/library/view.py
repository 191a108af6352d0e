"""A view: the library at one moment, narrowed by filters. All that a search reads goes through one."""

from __future__ import annotations

import asyncio
import bisect
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from longreach.library import table as chunk_table
from longreach.library.catalog import Catalog, Selection
from longreach.library.failures import reported
from longreach.library.table import ChunkTable
from longreach.types import Chunk, DocumentInfo, Hit

if TYPE_CHECKING:
    from longreach.library.embed import Vectors

Ranking = dict[int, float]
"""Scores by row, best first. A row number means something within one view only."""

_COLUMNS = ["id", "document", "about", "text"]
_RUNS, _SHARE = 1000, 10
"""A filter of more runs than this, which leaves more than one chunk in so many, is quicker checked after the search."""
_FEW = 1000
"""Chunks left by a filter up to which comparing with each is quicker than the index."""


P = ParamSpec("P")
T = TypeVar("T")


def _reporting(read: Callable[Concatenate[View, P], T]) -> Callable[Concatenate[View, P], T]:
    """Let a method of a view raise the library's own errors."""

    @functools.wraps(read)
    def wrapped(self: View, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with reported(self.catalog.folder):
            return read(self, *args, **kwargs)

    return wrapped


@dataclass
class View:
    """`version` of the chunk table, 0 in a library without chunks; `chunks` their number; `selection` is None where
    nothing is filtered."""

    catalog: Catalog
    source: ChunkTable
    version: int
    chunks: int
    selection: Selection | None = None

    @property
    def empty(self) -> bool:
        """Whether no chunk can be found here."""
        return self.version == 0 or (self.chunks if self.selection is None else self.selection.chunks) == 0

    @property
    def table(self) -> Any:
        """The chunk table itself, None in a library without chunks; to be read only."""
        return self.source.at(self.version) if self.version else None

    @_reporting
    def lexical(self, query: str, k: int) -> Ranking:
        """BM25 (k1 = 1.2, b = 0.75) of the chunks that have a word of `query`."""
        return self.source.run(self._lexical(query, k))

    @_reporting
    def nearest(self, vector: Vectors, k: int) -> Ranking:
        """Inner products with `vector`, exact each; where many chunks come into question, a near one may be missed."""
        return self.source.run(self._nearest(vector, k))

    @_reporting
    def both(self, query: str, vector: Vectors, k: int) -> tuple[Ranking, Ranking]:
        """`lexical` and `nearest` at once."""
        return self.source.run(self._both(query, vector, k))

    async def _both(self, query: str, vector: Vectors, k: int) -> tuple[Ranking, Ranking]:
        return await asyncio.gather(self._lexical(query, k), self._nearest(vector, k))

    async def _lexical(self, query: str, k: int) -> Ranking:
        import lancedb.query

        if self.empty or not (clean := _searchable(query)):
            return {}
        match: Any = lancedb.query.MatchQuery  # its optional fields look required to a type checker
        search = self.source.reads(self.version).query().nearest_to_text(match(clean, "text"))
        rows = await self._best(search, "_score", k)
        return _ranking(rows["_rowid"].to_pylist(), rows["_score"].to_pylist())

    async def _nearest(self, vector: Vectors, k: int) -> Ranking:
        if self.empty:
            return {}
        search = self.source.reads(self.version).query().nearest_to(vector).column("vector").distance_type("dot")
        if self.chunks <= chunk_table.EXACT or (self.selection and self.selection.chunks <= _FEW):
            search = search.bypass_vector_index()
        else:
            search = search.nprobes(max(16, self.chunks // (chunk_table.PARTITION * chunk_table.PROBED)))
        rows = await self._best(search, "_distance", k)
        return _ranking(rows["_rowid"].to_pylist(), [1.0 - distance for distance in rows["_distance"].to_pylist()])

    @_reporting
    def hits(self, scores: Sequence[tuple[int, float, Mapping[str, float]]]) -> list[Hit]:
        """Hits from rows, each with its score and the scores of the stages before, in the order given."""
        rows = self._take([row for row, _, _ in scores], _COLUMNS)
        infos = self.catalog.infos_of(row["document"] for row in rows.values())
        return [
            Hit(self._chunk(rows[row], infos), infos[rows[row]["document"]], score, stages)
            for row, score, stages in scores
        ]

    @_reporting
    def vectors(self, rows: Sequence[int]) -> Vectors:
        """The vectors of `rows`, `[rows, dim]`."""
        import numpy as np

        found = self._rows(rows, ["vector"])
        place = {row: index for index, row in enumerate(found["_rowid"].to_pylist())}
        vectors: Vectors = chunk_table.matrix(found)[np.array([place[row] for row in rows], int)]
        return vectors

    @_reporting
    def chunks_of(self, ids: Sequence[str]) -> list[Chunk]:
        """Chunks by their ids, in that order; unknown ids are left out."""
        if self.version == 0 or not ids:
            return []
        known = [id for id in ids if id.isalnum() and id.isascii()]
        among = ", ".join(f"'{id}'" for id in known)
        found = self.table.search().where(f"id IN ({among})").select(_COLUMNS).limit(None).to_arrow().to_pylist()
        infos = self.catalog.infos_of(row["document"] for row in found)
        chunks = {row["id"]: self._chunk(row, infos) for row in found}
        return [chunks[id] for id in ids if id in chunks]

    async def _best(self, search: Any, score: str, k: int) -> Any:
        """The `k` best rows of `search` that meet the filters, as an Arrow table with the column `score`."""
        search = search.with_row_id()
        if self.selection is None:
            return await search.select([score]).limit(k).to_arrow()
        search = search.select(["document", score])
        if len(self.selection.runs) > _RUNS and self.selection.chunks * _SHARE > self.chunks:
            deep = 2 * k * self.chunks // self.selection.chunks
            rows = await search.limit(deep).to_arrow()
            kept = [place for place, ordinal in enumerate(rows["document"].to_pylist()) if self._chosen(ordinal)]
            if len(kept) >= k:
                return rows.take(kept[:k])
        return await search.where(self._predicate).limit(k).to_arrow()

    def _chosen(self, ordinal: int) -> bool:
        runs = self.selection.runs if self.selection else []
        place = bisect.bisect_right(runs, ordinal, key=lambda run: run[0]) - 1
        return place >= 0 and ordinal <= runs[place][1]

    @functools.cached_property
    def _predicate(self) -> str:
        return _within(self.selection.runs if self.selection else [])

    def _take(self, rows: Sequence[int], columns: list[str]) -> dict[int, dict[str, Any]]:
        if not rows:
            return {}
        return {row["_rowid"]: row for row in self._rows(rows, columns).to_pylist()}

    def _rows(self, rows: Sequence[int], columns: list[str]) -> Any:
        async def take() -> Any:
            found = self.source.reads(self.version).take_row_ids(list(rows)).select(columns).with_row_id()
            return await found.to_arrow()

        return self.source.run(take())

    def _chunk(self, row: Mapping[str, Any], infos: Mapping[int, DocumentInfo]) -> Chunk:
        document_id, text = infos[row["document"]].id, row["text"]
        start, end, tokens, page, section = json.loads(row["about"])
        if "\ufffd" in text:  # it may stand for what Arrow cannot hold
            document = self.catalog.get(document_id)
            text = document.text[start:end] if document else text
        return Chunk(row["id"], document_id, start, end, text, tokens, tuple(section), page)


def _within(runs: Sequence[tuple[int, int]]) -> str:
    single = [str(first) for first, last in runs if first == last]
    parts = [f"document IN ({', '.join(single)})"] if single else []
    parts += [f"document BETWEEN {first} AND {last}" for first, last in runs if first != last]
    return " OR ".join(parts) or "false"


def _searchable(query: str) -> str:
    return query.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ").strip()


def _ranking(rows: list[int], scores: list[float]) -> Ranking:
    order = sorted(range(len(rows)), key=lambda index: (-scores[index], rows[index]))
    return {rows[index]: scores[index] for index in order}
