"""Measuring what reuse costs a model: on a tiny one, against what must come out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from families import fresh as network
from hashed import open_hashed
from longreach.cli.gate import with_others
from longreach.config import Settings
from longreach.engine.card import Card, Measured, card_file
from longreach.engine.paged import PagedEngine
from longreach.engine.ways import EXACT, tried
from longreach.errors import InputError, ModelError, UnsupportedError
from longreach.evaluate.gate.material import BUILT_IN, MOST, Asked, built_in, of_library, spread_out
from longreach.evaluate.gate.measure import measure
from longreach.evaluate.gate.prompts import askings
from longreach.evaluate.gate.relocation import relocation_error
from longreach.evaluate.metrics.fidelity import agreement_where_sure
from longreach.model.load import LoadedModel

STORIES = [
    "Lily had a red ball and a small dog. ",
    "One day a big bird came to the tree. ",
    "Tom went to the park with his mom. ",
    "The cat sat on the mat and ate a fish. ",
]
ASKED = [Asked("Who had a red ball?", tuple(STORIES)), Asked("What did the cat eat?", tuple(STORIES[::-1]))]


def wide(storyteller: PagedEngine, kv_bytes: int = 64 << 20) -> PagedEngine:
    """The storyteller with room for the examples; what it writes there is no story, and need not be."""
    return PagedEngine(replace(storyteller.loaded, context_length=4096), kv_bytes=kv_bytes)


@pytest.mark.thorough
def test_the_exact_way_costs_nothing_and_passages_that_do_not_see_each_other_cost_something(
    storyteller: PagedEngine, tmp_path: Path
) -> None:
    engine = wide(storyteller)
    steps: list[tuple[int, int]] = []
    card = measure(engine, ASKED, tried(), Settings(cache=tmp_path), "stories", lambda *step: steps.append(step))
    rows = {one.way: one for one in card.ways}
    assert rows[EXACT].kl < 1e-6
    assert (rows[EXACT].agreement, rows[EXACT].answers) in ((1.0, 1.0), (None, 1.0))
    assert rows["naive"].kl > 2e-5
    assert "adapter" not in rows  # it has none
    assert card.relocation is not None
    assert card.relocation < 1e-6
    assert card.tokens >= card.prompts == 2
    assert steps[-1] == (2, 2)
    assert engine.passages is None
    card.save(card_file(tmp_path, card.weights, card.fingerprint))
    json.loads(card_file(tmp_path, card.weights, card.fingerprint).read_text())


@pytest.mark.thorough
def test_memory_too_small_for_what_is_reused_is_an_error_and_no_card(storyteller: PagedEngine, tmp_path: Path) -> None:
    prompt = max(one.tokens for one in askings(wide(storyteller), ASKED))
    streams = storyteller.bridge.shapes.layers * storyteller.bridge.shapes.kv_heads
    pages = streams * -(-(prompt + 40) // storyteller.pool.page_size)
    engine = wide(storyteller, kv_bytes=pages * storyteller.pool.page_bytes)
    with pytest.raises(ModelError, match="memory"):
        measure(engine, ASKED, ["naive"], Settings(cache=tmp_path), "stories")


def test_a_context_too_small_for_any_prompt_is_told(storyteller: PagedEngine, tmp_path: Path) -> None:
    engine = PagedEngine(storyteller.loaded, kv_bytes=32 << 20)
    with pytest.raises(InputError, match="512"):
        measure(engine, ASKED, ["naive"], Settings(cache=tmp_path), "stories")


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "phi3"])
def test_moved_text_gives_what_it_gave_where_it_was_read(family: str) -> None:
    error = relocation_error(engine_of(family), list(range(3, 90)))
    assert error is not None
    assert error < 1e-6


def test_relocation_is_not_measured_where_keys_cannot_be_moved() -> None:
    assert relocation_error(engine_of("gpt2"), list(range(3, 90))) is None


def test_a_model_with_windows_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="do not see all"):
        measure(engine_of("mistral"), ASKED, ["naive"], Settings(cache=tmp_path), "stories")


def test_a_rotation_that_is_off_shows_in_the_relocation_error() -> None:
    engine = engine_of("llama")
    for rotation in engine.bridge.rotations:
        object.__setattr__(rotation, "frequencies", rotation.frequencies * 1.05)
    error = relocation_error(engine, list(range(3, 90)))
    assert error is not None
    assert error > 1e-4


def test_sure_tokens_alone_are_compared() -> None:
    exact = np.log(np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.2, 0.7, 0.1]]))
    near = np.log(np.array([[0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]))
    assert agreement_where_sure(exact, near).tolist() == [False, True]


def test_the_questions_that_come_with_longreach_have_their_answers_passage_among_others() -> None:
    asked = built_in()
    assert len(asked) >= 32
    assert len({one.question for one in asked}) == len(asked)
    for one in asked:
        assert len(set(one.passages)) == MOST
        assert one.passages[0] in one.some(4)
        assert set(one.some(MOST)) == set(one.passages)
    assert len(spread_out(asked, 5)) == 5


def test_questions_about_a_library_come_with_the_passage_that_answers_them(tmp_path: Path) -> None:
    library = open_hashed(tmp_path / "things.library")
    things = ("pump", "valve", "engine", "mirror", "ladder", "kettle", "anchor", "drum")
    for number, thing in enumerate(things):
        library.add_text(
            thing, f"The {thing} is a device of the {number + 3}rd kind. It weighs {number + 20} kg here.\n"
        )
    asked = of_library(library, 5)
    assert 1 <= len(asked) <= 5
    for one in asked:
        assert 2 <= len(one.passages) <= MOST
        assert any(thing in one.question.lower() and thing in one.passages[0] for thing in things)
    library.remove(list(things))
    with pytest.raises(InputError, match="no question"):
        of_library(library, 5)


def engine_of(family: str) -> PagedEngine:
    loaded = LoadedModel("tiny", network(family), None, frozenset(), "", 512, torch.device("cpu"), torch.float32, 0)
    return PagedEngine(loaded, kv_bytes=8 << 20)


def test_naming_ways_keeps_what_was_measured_of_others_with_the_same_prompts(tmp_path: Path) -> None:
    def row(way: str, kl: float) -> Measured:
        return Measured(way, "", kl, kl, 1.0, 1.0, 0.5)

    file = tmp_path / "card.json"
    card = Card("f", "w", "m", "float32", "cpu", BUILT_IN, 8, 80, 40, 0.0, 1.0, (row(EXACT, 0.0), row("naive", 0.2)))
    assert with_others(card, file) == card
    replace(card, ways=(row("naive", 0.1), row("other", 0.3))).save(file)
    assert [(one.way, one.kl) for one in with_others(card, file).ways] == [(EXACT, 0.0), ("naive", 0.2), ("other", 0.3)]
    fewer = replace(card, prompts=4)
    assert with_others(fewer, file) == fewer
    own = replace(card, material="library")
    assert with_others(own, file) == own
