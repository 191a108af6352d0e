"""Teaching a model to read passages apart: the exact limits, what is learned from, and that something is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longreach.errors import InputError
from longreach.kv.pool import PagePool
from longreach.model.adapter import Adapter
from longreach.model.bridge import Bridge
from longreach.train.blocks import read_opening
from longreach.train.blockwise import Recipe, loss_of, teach
from longreach.train.fidelity import Course, batches, divergence, evaluate, run_blocks
from longreach.train.material import HELD_OUT, HELD_PACKS, Case, Form, Material, held_out
from longreach.train.teacher import Lesson, lessons

SMALL = Recipe(steps=6, batch=400, round=2, prompt=200, answer=6, rank=4, rate=2e-3)


def cases(material: Material, form: Form, passages: int = 4, count: int = 5) -> list[Case]:
    return [
        replace(case, answer=None)
        for case in material.held_cases("one", form, passages, count, 0) + material.held_cases("two", form, 3, count, 0)
    ]


def taught(pupil: Bridge, material: Material, some: list[Case], form: str = "examples", most: int = 6) -> list[Lesson]:
    chosen = material.form(form)
    return lessons(pupil, read_opening(pupil, chosen.opening), chosen, some, most)


@pytest.mark.parametrize("form", ["examples", "chat"])
def test_the_teacher_says_what_the_original_model_says(
    pupil: Bridge, material: Material, original: Any, form: str
) -> None:
    chosen = material.form(form)
    for lesson in taught(pupil, material, cases(material, chosen), form):
        prompt = np.concatenate([chosen.opening, *lesson.case.passages, lesson.case.question])
        with torch.inference_mode():
            ids = torch.from_numpy(np.concatenate([prompt, lesson.answer]))[None]
            logits = original(ids).logits[0]
        said = logits[len(prompt) - 1 : -1]
        assert torch.allclose(lesson.said, said, atol=1e-3)
        assert torch.allclose(
            lesson.asked, logits[len(prompt) - len(lesson.case.question) : len(prompt) - 1], atol=1e-3
        )
        assert said.argmax(-1).tolist() == lesson.answer.tolist()
        assert len(lesson.answer) == 6 or lesson.answer[-1] in chosen.stops


def test_an_answer_that_is_given_is_followed(pupil: Bridge, material: Material) -> None:
    form = material.form("examples")
    given = np.array([40, 50, 60, 13], np.int64)
    some = [replace(case, answer=given) for case in cases(material, form)]
    assert all(lesson.answer.tolist() == [40, 50, 60, 13] for lesson in taught(pupil, material, some))


@pytest.mark.parametrize("form", ["examples", "chat"])
def test_one_passage_alone_is_read_as_the_full_prefill_reads_it(pupil: Bridge, material: Material, form: str) -> None:
    chosen = material.form(form)
    some = taught(
        pupil, material, [replace(case, passages=case.passages[:1]) for case in cases(material, chosen)], form
    )
    with torch.inference_mode():
        asked, said, read = run_blocks(pupil, read_opening(pupil, chosen.opening), some, None, watch=True)
    for at, lesson in enumerate(some):
        assert torch.allclose(said[at], lesson.said, atol=1e-3)
        assert torch.allclose(asked[at], lesson.asked, atol=1e-3)
    assert torch.allclose(read, torch.cat([lesson.read for lesson in some], 1), atol=1e-3)


def test_passages_read_apart_are_those_of_pages_that_are_moved(
    pupil: Bridge, material: Material, stories: Path
) -> None:
    """Beside attention over pages, the definition: each passage read behind the opening, its pages shifted."""
    chosen = material.form("examples")
    lesson = taught(pupil, material, cases(material, chosen)[:1])[0]
    with torch.inference_mode():
        _, (said,), _ = run_blocks(pupil, read_opening(pupil, chosen.opening), [lesson], None)
        expected = paged(pupil, chosen.opening, lesson)
    assert torch.allclose(said, expected, atol=1e-3)


def paged(pupil: Bridge, opening: np.ndarray, lesson: Lesson) -> torch.Tensor:
    """Logits along the answer, by `attend` over pages of one entry."""
    from longreach.attention.attend import PageRef, Scores, attend

    shapes = pupil.shapes
    pool = PagePool(16_384, 1, shapes.head_dim, value_dim=shapes.value_dim)
    stored: list[list[list[list[PageRef]]]] = []  # by text, layer, head

    class Step:
        def __init__(self, positions: torch.Tensor, behind: list[tuple[int, int]]) -> None:
            self.positions, self.behind = positions, behind
            stored.append([])

        def attend(
            self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
        ) -> Any:
            own: list[list[PageRef]] = []
            for head in range(shapes.kv_heads):
                pages = pool.take(len(key))
                own.append([PageRef(int(page)) for page in pages])
                for at, page in enumerate(pages.tolist()):
                    pool.keys[page, 0], pool.values[page, 0] = key[at, head], value[at, head]
                    pool.positions[page, 0] = self.positions[at]
            stored[-1].append(own)
            streams = [
                [replace(ref, shift=shift) for text, shift in self.behind for ref in stored[text][layer][head]]
                + own[head]
                for head in range(shapes.kv_heads)
            ]
            return attend(query, self.positions, pool, streams, scores, pupil.rotations[layer])

    def read(ids: np.ndarray, first: int, behind: list[tuple[int, int]]) -> torch.Tensor:
        positions = torch.arange(len(ids)) + first
        return pupil.run(torch.from_numpy(ids), positions, Step(positions, behind), torch.arange(len(ids)))

    read(opening, 0, [])
    behind, at = [(0, 0)], 0
    for number, passage in enumerate(lesson.case.passages):
        read(passage, len(opening), [(0, 0)])
        behind.append((number + 1, at))
        at += len(passage)
    asking = np.concatenate([lesson.case.question, lesson.answer[:-1]])
    return read(asking, len(opening) + at, behind)[len(lesson.case.question) - 1 :]


@pytest.mark.thorough
@pytest.mark.parametrize(("scope", "rate"), [("passages", 2e-3), ("everything", 2e-4)])
def test_an_adapter_learns_to_read_apart(pupil: Bridge, material: Material, scope: Any, rate: float) -> None:
    recipe = replace(SMALL, scope=scope, rate=rate)
    form = material.form("examples")
    opening = read_opening(pupil, form.opening)
    some = taught(pupil, material, cases(material, form))
    names = [name for name, _ in pupil.model.named_modules() if name.rpartition(".")[2] in recipe.modules]
    adapter = Adapter.fresh(pupil.model, names, recipe.rank, recipe.scale, recipe.scope, 0)
    optimiser = torch.optim.Adam([*adapter.down.values(), *adapter.up.values()], lr=recipe.rate)
    losses = []
    for _ in range(10):
        loss, _ = loss_of(pupil, opening, some, adapter, recipe)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
    assert all(parameter.grad is None for parameter in pupil.model.parameters())


def test_a_new_adapter_changes_nothing(pupil: Bridge, material: Material) -> None:
    form = material.form("examples")
    opening, some = read_opening(pupil, form.opening), taught(pupil, material, cases(material, form))
    adapter = Adapter.fresh(pupil.model, ["model.layers.1.self_attn.k_proj"], 4, 2.0, "passages", 0)
    with torch.inference_mode():
        _, plain, _ = run_blocks(pupil, opening, some, None)
        _, adapted, _ = run_blocks(pupil, opening, some, adapter)
    assert all(torch.equal(one, other) for one, other in zip(plain, adapted, strict=True))


@pytest.mark.thorough
def test_the_same_seed_teaches_the_same(pupil: Bridge, material: Material) -> None:
    one, other = ([adapter for _, adapter in teach(pupil, material, SMALL)][-1] for _ in range(2))
    assert all(torch.equal(one.up[name], other.up[name]) for name in one.up)
    assert any(bool(up.any()) for up in one.up.values())


@pytest.mark.thorough
def test_training_ends_after_its_steps_and_goes_on_from_where_it_ended(pupil: Bridge, material: Material) -> None:
    *_, (progress, adapter) = teach(pupil, material, SMALL)
    assert progress.step == SMALL.steps
    before = {name: up.detach().clone() for name, up in adapter.up.items()}
    *_, (_, further) = teach(pupil, material, replace(SMALL, steps=1, seed=1), adapter.trainable(pupil.model))
    moved = max(float((further.up[name] - before[name]).detach().abs().max()) for name in before)
    assert 0 < moved <= 2 * SMALL.rate


def test_evaluation_without_an_adapter_and_with_a_new_one_is_the_same(pupil: Bridge, material: Material) -> None:
    fresh = Adapter.fresh(pupil.model, ["model.layers.0.self_attn.v_proj"], 2, 1.0, "everything", 0)
    rows = evaluate(pupil, material, {"none": None, "new": fresh}, [Course("one", "chat", 3)], count=4, answer_tokens=3)
    assert [row["adapter"] for row in rows] == ["none", "new"]
    assert rows[0]["kl"] == pytest.approx(rows[1]["kl"], abs=1e-6)
    assert isinstance(rows[0]["kl"], float)
    assert rows[0]["kl"] > 1e-4


def test_material_is_the_same_after_a_round_trip(material: Material, tmp_path: Path) -> None:
    material.save(tmp_path / "one.npz")
    read = Material.load(tmp_path / "one.npz")
    assert read.packs == material.packs
    assert [form.name for form in read.forms] == ["examples", "chat"]
    for one, other in zip(read.forms, material.forms, strict=True):
        assert one.answers == other.answers
        assert all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("opening", "head", "tail", "stops"))
    assert all(np.array_equal(read.passages[at], material.passages[at]) for at in range(40))
    form = material.forms[0]
    one, other = (each.held_cases("one", form, 4, 3, 5) for each in (material, read))
    assert [case.question.tolist() for case in one] == [case.question.tolist() for case in other]


def test_a_file_that_is_no_material_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    for name in ("bad.npz", "missing.npz"):
        with pytest.raises(InputError, match="no training material"):
            Material.load(tmp_path / name)


def test_training_sees_nothing_that_is_held_out(material: Material) -> None:
    held = {tuple(material.passages[at]) for at in np.flatnonzero(material.passage_part == HELD_OUT)}
    asked = {tuple(material.questions[at]) for at in np.flatnonzero(material.question_part == HELD_OUT)}
    form = material.form("examples")
    stream = material.training_cases(form, np.random.default_rng(0), 150)
    for case, _ in zip(stream, range(200), strict=False):
        assert case.tokens <= 150
        assert tuple(case.question[len(form.head) : -len(form.tail)]) not in asked
        for passage in case.passages:
            assert tuple(passage[:-1]) not in held
            assert tuple(passage[:-2]) not in held


def test_held_out_questions_come_with_what_answers_them(material: Material) -> None:
    form = material.form("chat")
    for case in material.held_cases("two", form, 5, 10, 0):
        begins = case.question[len(form.head) : -len(form.tail)]
        assert len(case.passages) == 5
        assert any(passage[:4].tolist() == begins.tolist() for passage in case.passages)


def test_what_is_held_out_depends_on_the_id_alone() -> None:
    share = sum(held_out("nq_passages", str(at)) for at in range(1000)) / 1000
    assert 0.35 < share < 0.45
    assert all(held_out(pack, "1") for pack in HELD_PACKS)


def test_batches_keep_order_and_size() -> None:
    assert batches([3, 3, 9, 1, 2], 6, int) == [[3, 3], [9], [1, 2]]


def test_divergence_is_that_of_the_definition() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    assert float(divergence(p.log() + 3, q.log())) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("text", ["musique", "a:b:c", "a:b:1:2"])
def test_a_course_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="names no course"):
        Course.parse(text)
