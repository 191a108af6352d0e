"""TREC files: topics, documents, relevance judgements (qrels) and runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from longreach.errors import InputError
from longreach.evaluate.pack import Pack

_DOC = re.compile(r"<DOC>(.*?)</DOC>", re.DOTALL)
_DOCNO = re.compile(r"<DOCNO>(.*?)</DOCNO>", re.DOTALL)
_TOP = re.compile(r"<top>(.*?)</top>", re.DOTALL | re.IGNORECASE)
_NUM = re.compile(r"<num>\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*(?:Topic:)?\s*([^<]+)", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")


def read_trec(folder: Path) -> Pack:
    """A folder with documents (`docs*`), topics (`topics*`) and judgements (`qrels*`) as TREC keeps them. Raises
    InputError naming what is missing."""
    found = {part: sorted(file for file in folder.glob(f"{part}*") if file.is_file()) for part in _PARTS}
    missing = [part for part, files in found.items() if not files]
    if missing:
        raise InputError(f"{folder} holds no {' and no '.join(f'{part}* file' for part in missing)}")
    docs: dict[str, str] = {}
    for file in found["docs"]:
        docs |= _documents(file)
    queries: dict[str, str] = {}
    for file in found["topics"]:
        queries |= read_topics(file)
    qrels = read_qrels(found["qrels"][0])
    return Pack(str(folder), docs, {query: queries[query] for query in qrels if query in queries}, qrels)


_PARTS = ("docs", "topics", "qrels")


def read_qrels(file: Path) -> dict[str, dict[str, int]]:
    """`query iteration document grade`, a line each. Raises InputError naming the line at fault."""
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for number, cells in _lines(file):
        if len(cells) != 4 or not cells[3].lstrip("-").isdigit():
            raise InputError(f"{file}, line {number}: write query, iteration, document and grade")
        qrels[cells[0]][cells[2]] = int(cells[3])
    return dict(qrels)


def read_run(file: Path) -> dict[str, dict[str, float]]:
    """`query Q0 document rank score tag`, a line each. Raises InputError naming the line at fault."""
    run: dict[str, dict[str, float]] = defaultdict(dict)
    for number, cells in _lines(file):
        try:
            query, _, document, _, score, _ = cells
            run[query][document] = float(score)
        except ValueError:
            raise InputError(f"{file}, line {number}: write query, Q0, document, rank, score and tag") from None
    return dict(run)


def write_run(file: Path, run: Mapping[str, Mapping[str, float]], tag: str = "longreach") -> None:
    """Write a run, best first, for trec_eval and its like."""
    lines = [
        f"{query} Q0 {document} {rank} {score!r} {tag}"
        for query, ranked in run.items()
        for rank, (document, score) in enumerate(sorted(ranked.items(), key=lambda pair: -pair[1]), start=1)
    ]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_topics(file: Path) -> dict[str, str]:
    """Topics in TREC's tags, or `number<tab>text` a line."""
    text = file.read_text(encoding="utf-8", errors="replace")
    tops = _TOP.findall(text)
    if not tops:
        pairs = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
        return {number.strip(): topic.strip() for number, topic in pairs}
    topics: dict[str, str] = {}
    for top in tops:
        number, title = _NUM.search(top), _TITLE.search(top)
        if number and title:
            topics[number[1]] = " ".join(title[1].split())
    return topics


def _documents(file: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for doc in _DOC.findall(file.read_text(encoding="utf-8", errors="replace")):
        number = _DOCNO.search(doc)
        if number:
            found[number[1].strip()] = _TAG.sub(" ", doc.replace(number[0], "")).strip()
    return found


def _lines(file: Path) -> list[tuple[int, list[str]]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
