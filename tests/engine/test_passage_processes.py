"""Processes that answer from one store, at once or killed on the way: answers are those without any store."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keeping import answer, choices, forgetful, keeping, store_of
from longreach.engine.paged import PagedEngine

SCRIPT = Path(__file__).parent.parent / "keeping.py"


def program(stories: Path, folder: Path, *given: object, codec: str = "raw") -> subprocess.Popen[str]:
    """A process that asks; given: the bytes of its disk, its seed, and how often it asks."""
    command = [sys.executable, str(SCRIPT), str(stories), str(folder), codec, *map(str, given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(lines: Iterator[str]) -> list[tuple[list[int], list[int]]]:
    """Which passages were asked about, and the answers, as far as a process told."""
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(chosen, tokens) for chosen, tokens in found if chosen != "done"]


def check(engine: PagedEngine, answers: list[tuple[list[int], list[int]]]) -> None:
    """That they are those without any store."""
    known: dict[tuple[int, ...], list[int]] = {}
    for chosen, tokens in answers:
        if tuple(chosen) not in known:
            known[tuple(chosen)] = answer(engine, chosen)
        assert known[tuple(chosen)] == tokens


@pytest.mark.thorough
def test_two_engines_on_one_store_at_once_answer_as_without_any(
    storyteller: PagedEngine, stories: Path, tmp_path: Path
) -> None:
    two = [program(stories, tmp_path / "store", 400_000, seed, 60) for seed in (1, 2)]  # a third of what they read
    answers = []
    for process in two:
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        assert "cannot be written" not in err
        assert json.loads(out.splitlines()[-1]) == ["done", 0]
        answers += told(iter(out.splitlines(keepends=True)))
    assert len(answers) == 120
    check(forgetful(storyteller.loaded, tmp_path / "none"), answers)


@pytest.mark.thorough
def test_killed_while_passages_go_from_tier_to_tier_it_answers_as_without_any_store(
    storyteller: PagedEngine, stories: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    answers = []
    for seed in range(3):
        process = program(stories, tmp_path / "store", 1 << 30, seed, 10_000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.randrange(4, 16))]
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        rest, err = process.communicate()
        assert "Traceback" not in err
        answers += told(iter([*lines, *rest.splitlines(keepends=True)]))
    check(forgetful(storyteller.loaded, tmp_path / "none"), answers)
    engine = keeping(storyteller.loaded, tmp_path / "store", host=0)
    found = [(chosen, answer(engine, chosen)) for chosen in choices(9, 20)]
    check(forgetful(storyteller.loaded, tmp_path / "none"), found)
    stats = store_of(engine).stats().disk
    assert stats.hits > 0
    assert stats.damaged == 0
