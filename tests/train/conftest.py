"""A model small enough to teach in a test, and something to teach it from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longreach.model.bridge import Bridge
from longreach.train.material import HELD_OUT, NEAR, TRAINING, Form, Material, Ragged


@pytest.fixture(scope="module")
def pupil(stories: Path) -> Bridge:
    """stories260k in float32, for one module's tests: they lay adapters on it and take them off again."""
    from longreach.model.load import load

    return Bridge(load(str(stories), cache=Path("unused"), device="cpu", dtype="float32").model)


@pytest.fixture(scope="module")
def material(stories: Path) -> Material:
    """Forty passages of a story, each with a question of its own first tokens; half of them held out."""
    from tokenizers import Tokenizer

    chance = np.random.default_rng(7)
    things = ("red ball", "little dog", "big box", "blue hat", "toy car")
    told = [
        f"{name} had a {chance.choice(things)}. {name} was very {mood} and went to the {place}."
        for name, mood, place in zip(
            ["Tom", "Lily", "Ben", "Mia", "Sam", "Anna", "Max", "Sue"] * 5,
            ["happy", "sad", "kind", "scared", "proud"] * 8,
            ["park", "shop", "lake", "house", "garden", "tree", "hill"] * 6,
            strict=False,
        )
    ]
    read = Tokenizer.from_file(str(stories / "tokenizer.json"))
    passages = [read.encode(text, add_special_tokens=False).ids for text in told]
    parts = np.array([HELD_OUT if at % 2 else TRAINING for at in range(40)], np.int8)
    made = np.arange(40) % 4 < 2

    def form(name: str, opening: int, answers: bool) -> Form:
        head, tail, stops = (np.array(row, np.int64) for row in ([5, 6], [7], [13, 2]))
        return Form(name, np.arange(3, 3 + opening), head, tail, stops, answers)

    return Material(
        forms=(form("examples", 11, True), form("chat", 4, False)),
        partings=(np.array([13], np.int64), np.array([13, 13], np.int64)),
        packs=("one", "two"),
        passages=Ragged.of(passages, np.uint16),
        passage_pack=np.array([at % 8 < 4 for at in range(40)], np.int8),
        passage_part=parts,
        questions=Ragged.of([passage[:4] for passage in passages], np.uint16),
        answers=Ragged.of([passage[4:7] for passage in passages], np.uint16),
        question_pack=np.array([at % 8 < 4 for at in range(40)], np.int8),
        question_part=parts,
        natural=~made,
        gold=np.array([[at, -1, -1, -1] for at in range(40)], np.int32),
        near=np.full((40, NEAR), -1, np.int32),
    )
