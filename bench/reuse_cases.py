"""Questions of people, each with passages, that the adapter has never seen: what reuse is measured with."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longreach.engine import Engine
from longreach.train.material import held_out

LONGEST = 130
"""Tokens of a passage."""


@dataclass(frozen=True)
class Case:
    """A question of people, with the passages that answer it and others that look alike, in any order."""

    pack: str
    question: str
    passages: list[str]
    answers: list[str]


def cases(data: Path, pack: str, passages: int, count: int, engine: Engine) -> Iterator[Case]:
    """Held-out questions of a pack, each with `passages` held-out passages."""
    from bm25s import BM25, tokenize

    held = json.loads(gzip.decompress((data / f"{pack}.json.gz").read_bytes()))
    ids = [i for i in held["docs"] if held_out(pack, i)]
    index = BM25()
    index.index(tokenize([held["docs"][i] for i in ids], stopwords="en", show_progress=False), show_progress=False)
    made = 0
    for key in sorted((key for key in held["queries"] if held_out(pack, key)), key=hashed):
        if made == count:
            return
        asked = tokenize([held["queries"][key]], stopwords="en", show_progress=False)
        ranked = [ids[i] for i in index.retrieve(asked, k=3 * passages, show_progress=False)[0][0]]
        gold = [i for i in held["qrels"][key] if i in held["docs"]]
        chosen = list(dict.fromkeys([*gold, *ranked]))[:passages]
        if not gold or len(chosen) < passages:
            continue
        texts = [engine.decode(engine.tokenize(held["docs"][i])[:LONGEST]) for i in sorted(chosen, key=hashed)]
        made += 1
        yield Case(pack, held["queries"][key], texts, held["answers"].get(key, []))


def hashed(text: str) -> str:
    """Orders texts by nothing that they say."""
    return hashlib.sha256(text.encode()).hexdigest()
