"""Retrieval packs: documents, queries, what is relevant to each, and answers where there are some.

`load_pack` takes the name of a shared pack, a `.json` or `.json.gz` file of its shape, a folder in the layout of BEIR
(Thakur et al. 2021, arXiv 2104.08663), or a folder of TREC files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from longreach.errors import InputError
from longreach.evaluate.data import data_file, read_json, read_jsonl


@dataclass(frozen=True)
class Pack:
    """`docs` and `queries` by id; `qrels[query][document]` is a grade; `answers[query]` are the right ones, any of
    them."""

    name: str
    docs: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@lru_cache(maxsize=4)
def load_pack(name: str) -> Pack:
    """The pack `name`. Raises InputError where there is none or it is no pack."""
    path = Path(name).expanduser()
    if path.is_dir():
        from longreach.evaluate.trec import read_trec

        return _beir(path) if (path / "corpus.jsonl").is_file() else read_trec(path)
    file = path if path.is_file() else data_file(name)
    content = read_json(file)
    if not isinstance(content, dict) or not {"docs", "queries", "qrels"} <= content.keys():
        raise InputError(f"{file} is no retrieval pack: it needs docs, queries and qrels")
    answers = content.get("answers", {})
    return Pack(
        name,
        content["docs"],
        content["queries"],
        {query: {doc: int(grade) for doc, grade in docs.items()} for query, docs in content["qrels"].items()},
        {query: (told,) if isinstance(told, str) else tuple(told) for query, told in answers.items()},
    )


def _beir(folder: Path) -> Pack:
    """`corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv` (another split where that is missing)."""
    splits = sorted((folder / "qrels").glob("*.tsv"), key=lambda file: (file.stem != "test", file.stem))
    if not splits or not (folder / "queries.jsonl").is_file():
        raise InputError(f"{folder} lacks queries.jsonl or qrels/*.tsv of BEIR's layout")
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for number, line in enumerate(splits[0].read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.split("\t")
        if len(cells) != 3 or not cells[2].lstrip("-").isdigit():
            if number == 1 or not line.strip():
                continue  # the header
            raise InputError(f"{splits[0]}, line {number}: write query, document and grade between tabs")
        qrels[cells[0]][cells[1]] = int(cells[2])
    queries = {str(row["_id"]): str(row["text"]) for row in read_jsonl(folder / "queries.jsonl") if "_id" in row}
    docs = {str(row["_id"]): _titled(row) for row in read_jsonl(folder / "corpus.jsonl") if "_id" in row}
    return Pack(str(folder), docs, {query: queries[query] for query in qrels if query in queries}, dict(qrels))


def _titled(row: Mapping[str, Any]) -> str:
    return f"{row['title']}\n{row.get('text', '')}" if row.get("title") else str(row.get("text", ""))
