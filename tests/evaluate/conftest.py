"""A haystack and a pack that need no data: of made-up words, large enough for contexts of some thousand tokens."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hashed import open_hashed
from longreach.evaluate.questions import Made
from longreach.evaluate.questions.file import write_questions
from longreach.evaluate.tasks import Task, tasks
from longreach.evaluate.vocabulary import made_up
from longreach.types import Document


def count(text: str) -> int:
    """Tokens as a tokenizer would count them, roughly: pieces of words of up to four letters, and marks."""
    return len(re.findall(r"\w{1,4}|[^\w\s]", text))


def _sentence(random: Random, size: int) -> str:
    return " ".join(made_up(random, random.choice((1, 2, 2, 3))) for _ in range(size)).capitalize() + "."


@pytest.fixture(scope="session")
def haystack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 3,000 sentences."""
    random = Random(0)
    file = tmp_path_factory.mktemp("material") / "haystack.txt"
    file.write_text("\n\n".join(_sentence(random, random.randrange(5, 20)) for _ in range(3000)), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retrieval pack of 400 documents and 60 questions, each told in one of them."""
    random = Random(1)
    docs: dict[str, str] = {}
    queries, qrels, answers = {}, {}, {}
    for number in range(400):
        subject, answer = (made_up(random, 4).capitalize() for _ in range(2))
        sentences = [_sentence(random, 12) for _ in range(5)]
        sentences.insert(random.randrange(5), f"The keeper of {subject} harbor was {answer} for many years.")
        docs[f"d{number}"] = f"{subject}\n{' '.join(sentences)}"
        if number < 60:
            queries[f"q{number}"] = f"who was the keeper of {subject} harbor"
            qrels[f"q{number}"] = {f"d{number}": 1}
            answers[f"q{number}"] = [answer]
    file = tmp_path_factory.mktemp("packs") / "keepers.json"
    file.write_text(json.dumps({"docs": docs, "queries": queries, "qrels": qrels, "answers": answers}))
    return file


@pytest.fixture(scope="session")
def own(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A library of 12 documents of that pack, and a file with a question about each."""
    content = json.loads(pack.read_text())
    folder = tmp_path_factory.mktemp("own")
    made, quotes = [], []
    with open_hashed(folder / "own.library") as library:
        library.add_documents(Document(id, content["docs"][id]) for id in list(content["docs"])[:12])
        for info in library.documents():
            text = library.get(info.id).text
            start = text.index("The keeper of")
            end = text.index("years.", start) + 6
            query = f"q{info.id[1:]}"
            made.append(Made(content["queries"][query], content["answers"][query][0], info.id, start, end, "keepers"))
            quotes.append(text[start:end])
    write_questions(folder / "questions.jsonl", made, quotes)
    return folder / "own.library", folder / "questions.jsonl"


@pytest.fixture(scope="session")
def make(haystack: Path, pack: Path, own: tuple[Path, Path]):
    """Makes a task by its name over the material above, with the options given and a small size."""

    def task(name: str, counter: Any = count, **given: Any) -> Task:
        known = {field.name for field in fields(tasks.get(name))}  # type: ignore[arg-type]
        small = {
            "length": 2048,
            "n": 4,
            "haystack": str(haystack),
            "pack": str(pack),
            "library": str(own[0]),
            "file": str(own[1]),
        }
        chosen = {key: value for key, value in {**small, **given}.items() if key in known}
        options = ", ".join(f"{key}={value!r}" for key, value in chosen.items())
        return tasks.make(f"{name}({options})", count=counter)

    return task
