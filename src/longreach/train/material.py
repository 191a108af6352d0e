"""What is trained on: passages and questions as tokens, in one small file, and the prompts that are made of them.

Two fifths of the questions and passages are held out, by a hash of their ids alone (`held_out`), so that whoever
measures an adapter knows which ones it has never seen; some packs are held out as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from longreach.errors import InputError

Ids: TypeAlias = NDArray[np.int64]

TRAINING, HELD_OUT, UNUSED = 0, 1, 2
"""Parts of the material. Unused are questions whose passages were divided between the two others."""
HELD_SHARE = 0.4
HELD_PACKS = ("code_qa", "chunk_spans")
NEAR = 16


def held_out(pack: str, id: str) -> bool:
    """Whether a question or a passage is kept from training."""
    part = int(hashlib.sha256(f"{pack}/{id}".encode()).hexdigest()[:8], 16)
    return pack in HELD_PACKS or part < HELD_SHARE * 2**32


@dataclass(frozen=True)
class Case:
    """A prompt behind an opening: `passages`, each with what parts it from the next, and `question` up to where the
    answer begins. `answer` is what shall be said; None leaves it to the original model."""

    passages: tuple[Ids, ...]
    question: Ids
    answer: Ids | None
    pack: str

    @property
    def tokens(self) -> int:
        return sum(len(passage) for passage in self.passages) + len(self.question)


@dataclass(frozen=True)
class Form:
    """How prompts are laid out: what opens them, what stands around a question, where an answer ends.

    `answers` says whether answers of the packs are written in this form; else the model's own are always taken.
    """

    name: str
    opening: Ids
    head: Ids
    tail: Ids
    stops: Ids
    answers: bool


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one array."""

    flat: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: type[np.unsignedinteger]) -> Ragged:
        flat = np.concatenate([np.asarray(row, dtype) for row in rows]) if rows else np.empty(0, dtype)
        return cls(flat, np.cumsum([0, *map(len, rows)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, at: int) -> Ids:
        return self.flat[self.starts[at] : self.starts[at + 1]].astype(np.int64)


@dataclass(frozen=True)
class Material:
    """Everything that prompts are made of. Passages and questions know their pack (`packs[number]`) and their part.

    `gold [questions, up to 4]` are the passages that answer a question, `near [questions, up to NEAR]` those that look
    like it, of its own part; -1 fills both. `natural` questions were asked by people, the others made from a passage.
    """

    forms: tuple[Form, ...]
    partings: tuple[Ids, ...]
    packs: tuple[str, ...]
    passages: Ragged
    passage_pack: NDArray[np.int8]
    passage_part: NDArray[np.int8]
    questions: Ragged
    answers: Ragged
    question_pack: NDArray[np.int8]
    question_part: NDArray[np.int8]
    natural: NDArray[np.bool_]
    gold: NDArray[np.int32]
    near: NDArray[np.int32]

    def save(self, file: Path) -> None:
        """Write it; `load` reads it."""
        stored: dict[str, NDArray[np.generic]] = {
            "forms": np.array([form.name for form in self.forms]),
            "form_answers": np.array([form.answers for form in self.forms]),
            "packs": np.array(self.packs),
            **{name: getattr(self, name) for name in _PLAIN},
        }
        ragged = {name: getattr(self, name) for name in _RAGGED}
        rows = [[form.opening, form.head, form.tail, form.stops] for form in self.forms]
        ragged["form_parts"] = Ragged.of([part.tolist() for form in rows for part in form], np.uint32)
        ragged["partings"] = Ragged.of([parting.tolist() for parting in self.partings], np.uint32)
        for name, rag in ragged.items():
            stored |= {name: rag.flat, f"{name}_starts": rag.starts.astype(np.int32)}
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **stored)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: Path) -> Material:
        """Read it. Raises InputError where the file is not there or not one."""
        try:
            with np.load(file, allow_pickle=False) as read:
                stored = dict(read)
            parts, partings, *rest = (
                Ragged(stored[name], stored[f"{name}_starts"].astype(np.int64))
                for name in ("form_parts", "partings", *_RAGGED)
            )
            forms = tuple(
                Form(str(name), *_four(parts, 4 * at), bool(stored["form_answers"][at]))
                for at, name in enumerate(stored["forms"])
            )
            packs = tuple(map(str, stored["packs"]))
            fields = dict(zip(_RAGGED, rest, strict=True)) | {name: stored[name] for name in _PLAIN}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is no training material: {error}; make it with longreach.train.prepare") from None
        return cls(forms=forms, partings=tuple(partings[at] for at in range(len(partings))), packs=packs, **fields)

    def form(self, name: str) -> Form:
        """The form called `name`."""
        return next(form for form in self.forms if form.name == name)

    def held_cases(self, pack: str, form: Form, passages: int, count: int, seed: int) -> list[Case]:
        """Prompts of held-out questions that people asked, with what answers them and what looks like it, shuffled."""
        chance = np.random.default_rng([seed, passages, *pack.encode()])
        mine = (self.question_part == HELD_OUT) & self.natural & (self.question_pack == self.packs.index(pack))
        chosen = chance.permutation(np.flatnonzero(mine))[:count]
        return [
            self._case(int(question), form, self._around(int(question), passages, chance), self.partings[0])
            for question in chosen
        ]

    def training_cases(self, form: Form, chance: np.random.Generator, most_tokens: int) -> Iterator[Case]:
        """Prompts without end. Any question teaches, whether the passages answer it or not: what is learned is what the
        original model says."""
        usable = self.question_part == TRAINING
        asked, made = np.flatnonzero(usable & self.natural), np.flatnonzero(usable & ~self.natural)
        while True:
            question = int(chance.choice(asked if chance.random() < 0.5 else made))
            count = int(chance.choice(_COUNTS))
            around = self._around(question, count, chance, whole=chance.random() < 0.9)
            case = self._case(question, form, around, self.partings[int(chance.integers(len(self.partings)))])
            while case.tokens > most_tokens and len(case.passages) > 1:
                case = Case(case.passages[1:], case.question, case.answer, case.pack)
            if case.tokens > most_tokens:
                continue
            if chance.random() < 0.5:
                case = Case(case.passages, case.question, None, case.pack)
            yield case

    def _around(self, question: int, count: int, chance: np.random.Generator, whole: bool = True) -> list[int]:
        """Passages for a question, in any order: what answers it, if `whole`, some that look like it, any others."""
        gold = [int(at) for at in self.gold[question] if at >= 0]
        near = [int(at) for at in self.near[question] if at >= 0 and at not in gold]
        chosen = gold[:count] if whole else []
        chosen += near[: int(chance.integers(0, count + 1))] if len(near) else []
        part, pack = self.question_part[question], self.question_pack[question]
        mine = self.passage_part == part
        if part == HELD_OUT or chance.random() < 0.7:
            mine &= self.passage_pack == pack
        there = np.flatnonzero(mine)
        others = chance.choice(there, min(len(there), 2 * count + len(gold)), replace=False)
        chosen += [int(at) for at in others if at not in gold]
        unique = list(dict.fromkeys(chosen))[:count]
        return [unique[at] for at in chance.permutation(len(unique))]

    def _case(self, question: int, form: Form, passages: Sequence[int], parting: Ids) -> Case:
        texts = tuple(np.concatenate([self.passages[at], parting]) for at in passages)
        asked = np.concatenate([form.head, self.questions[question], form.tail])
        answer = np.concatenate([self.answers[question], form.stops[:1]]) if form.answers else None
        if answer is not None and len(answer) < 2:
            answer = None
        return Case(texts, asked, answer, self.packs[self.question_pack[question]])


def _four(rows: Ragged, at: int) -> tuple[Ids, Ids, Ids, Ids]:
    return rows[at], rows[at + 1], rows[at + 2], rows[at + 3]


_RAGGED = ("passages", "questions", "answers")
_PLAIN = ("passage_pack", "passage_part", "question_pack", "question_part", "natural", "gold", "near")
_COUNTS = (2, 3, 4, 5, 6, 8, 8, 10, 12, 16)
"""How many passages a prompt of the training has, at most."""
