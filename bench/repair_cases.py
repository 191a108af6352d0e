"""The prompts that reuse is measured on: real questions, the passages that answer them, and others that look alike."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.context.assemble import INSTRUCTIONS, as_question
from longreach.engine import Message
from longreach.engine.chat import render

SHORTEST, LONGEST = 60, 130
"""Tokens of a passage."""


@dataclass(frozen=True)
class Case:
    """A prompt in pieces of token ids: the prefix, for each chunk the joint before it and the chunk, the tail."""

    name: str
    prefix: list[int]
    joints: list[list[int]]
    chunks: list[list[int]]
    tail: list[int]
    answers: list[str]


def cases(data: Path, pack: str, passages: int, count: int, tokenizer: Any, *, part: str) -> list[Case]:
    """`count` cases of `part` "dev" or "test", which share no question: the hash of a question's id decides."""
    from bm25s import BM25, tokenize

    held = json.loads(gzip.decompress((data / f"{pack}.json.gz").read_bytes()))
    ids = list(held["docs"])
    index = BM25()
    index.index(tokenize([held["docs"][i] for i in ids], stopwords="en", show_progress=False), show_progress=False)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    found: list[Case] = []
    for key in sorted(held["queries"], key=_hash):
        if (_hash(key) % 3 == 0) != (part == "dev") or len(found) == count:
            continue
        question = held["queries"][key]
        asked = tokenize([question], stopwords="en", show_progress=False)
        ranked = [ids[i] for i in index.retrieve(asked, k=4 * passages, show_progress=False)[0][0]]
        gold = [i for i in held["qrels"][key] if i in held["docs"]]
        texts = {i: encode(held["docs"][i])[:LONGEST] for i in [*gold, *ranked]}
        near = [i for i in dict.fromkeys(ranked) if i not in gold and len(texts[i]) >= SHORTEST]
        if not gold or len(near) < passages - len(gold):
            continue
        chosen = sorted([*gold, *near[: passages - len(gold)]], key=lambda i: _hash(key + i))
        prefix, joints, tail = _frame(question, passages, tokenizer)
        found.append(
            Case(
                f"{pack}/{key}",
                encode(prefix),
                [encode(joint) for joint in joints],
                [texts[i] for i in chosen],
                encode(tail),
                held["answers"][key],
            )
        )
    return found


def _frame(question: str, passages: int, tokenizer: Any) -> tuple[str, list[str], str]:
    """What stands around the chunks in the reader's prompt."""
    mark = "\N{SECTION SIGN}"
    shown = "".join(f"[{n}] {mark}\n\n" for n in range(1, passages + 1))
    asked = Message("user", f"{shown}Question: {as_question(question.replace(mark, ''))}")
    first, *rest = render(tokenizer, [Message("system", INSTRUCTIONS), asked]).split(mark)
    # The first passage's number belongs to its joint, so that all questions share the prefix to the token.
    prefix, number = first[: first.rindex("[")], first[first.rindex("[") :]
    return prefix, [number, *rest[:-1]], rest[-1]


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
