"""`longreach eval`, as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough


@pytest.fixture
def longreach(tmp_path: Path, stories: Path):
    """Runs the command in a folder of its own with a model that is read in milliseconds."""

    def go(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "longreach", "eval", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "LONGREACH_MODEL": str(stories),
                "OMP_NUM_THREADS": "1",
                "COLUMNS": "160",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    return go


def test_a_task_is_scored_once_and_compared(longreach, tmp_path: Path) -> None:
    task = "niah_single(length=300, haystack=noise)"
    shown = longreach(task, "--limit", "2", "--json", "out/summary.json", "--results", "a.jsonl").stdout
    assert "niah_single(length=300, haystack='noise')" in shown
    report = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert report["command"].startswith("longreach eval")
    assert {"python", "processor", "versions", "revision"} <= report["environment"].keys()
    (summary,) = report["summaries"]
    assert summary["score"]["n"] == 2
    assert 297 <= summary["prompt_tokens"] <= 302  # the model's own first token comes on top
    assert len(summary["configuration"]["fingerprint"]) == 32
    before = (tmp_path / "a.jsonl").read_bytes()
    assert "2 of 2 examples were done before" in longreach(task, "--limit", "2", "--results", "a.jsonl").stderr
    assert (tmp_path / "a.jsonl").read_bytes() == before
    longreach(task, "--limit", "2", "--results", "b.jsonl", "--policy", "snapkv(budget=0.5)")
    longreach("--compare", "a.jsonl", "b.jsonl", "--json", "compared.json")
    (compared,) = json.loads((tmp_path / "compared.json").read_text())["comparisons"]
    assert compared["difference"]["difference"]["n"] == 2


def test_a_sweep_writes_its_table_its_figures_and_does_nothing_twice(longreach, tmp_path: Path) -> None:
    given = ("niah_single(length=300, haystack=noise)", "--sweep", "policy=full,snapkv(budget=0.5)", "--out", "o")
    shown = longreach(*given, "--limit", "2", "--json", "s.json").stdout
    assert "policy=full" in shown
    assert "policy=snapkv(budget=0.5)" in shown
    names = {file.name for file in (tmp_path / "o").iterdir() if not file.name.startswith(".")}
    assert names == {"results.jsonl", "results.parquet", "frontier.png", "frontier.html"}
    marks = json.loads((tmp_path / "s.json").read_text())["marks"]
    full, half = (mark["kv_bytes"] for mark in marks)
    assert half < full
    before = (tmp_path / "o" / "results.jsonl").read_bytes()
    assert "4 of 4 answers were there before" in longreach(*given, "--limit", "2").stderr
    assert (tmp_path / "o" / "results.jsonl").read_bytes() == before


def test_questions_are_made_from_a_library_and_never_written_over(
    longreach, tmp_path: Path, own: tuple[Path, Path]
) -> None:
    made = ("--make-questions", str(own[0]), "--maker", "names(least=1)", "--maker", "definitions")
    assert "no question could be made" in longreach(*made, code=2).stderr
    (tmp_path / "questions.jsonl").write_text("mine")
    assert "is there already" in longreach(*made, code=2).stderr
    assert (tmp_path / "questions.jsonl").read_text() == "mine"


def test_a_search_is_scored_over_a_pack(longreach, tmp_path: Path, pack: Path, embedded_cache: Path) -> None:
    small = json.loads(pack.read_text())
    small["docs"] = {id: text for id, text in small["docs"].items() if int(id[1:]) < 30}
    small["queries"] = {id: text for id, text in small["queries"].items() if int(id[1:]) < 5}
    for part in ("qrels", "answers"):
        small[part] = {id: value for id, value in small[part].items() if id in small["queries"]}
    (tmp_path / "small.json").write_text(json.dumps(small))
    longreach(
        "retrieval(pack='small.json')",
        "--retriever",
        "bm25",
        "--json",
        "s.json",
        LONGREACH_CACHE=str(embedded_cache),
        LONGREACH_OFFLINE="1",
    )
    (summary,) = json.loads((tmp_path / "s.json").read_text())["summaries"]
    assert summary["score"]["mean"] > 0.9
    assert summary["configuration"]["retriever"] == "bm25"
    assert (tmp_path / "longreach-eval.jsonl").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a task; known: common_words"),
        (("nothing",), "no task is called 'nothing'"),
        (("niah_single(length=20, haystack=noise)",), "too short"),
        (("niah_single(length=900, haystack=noise)",), "reads 512"),
        (("niah_single(haystack=noise)", "--compare", "a", "b"), "no task"),
        (("--compare", "a", "b"), "there is no results file a"),
        (("retrieval(pack='nowhere')", "--policy", "snapkv"), "leave --policy away"),
        (("niah_single", "--sweep", "depth=1,2"), "a sweep has no axis 'depth'; known: policy, form"),
        (("niah_single(length=300, haystack=noise)", "--sweep", "k=4..8"), "k changes nothing in this task"),
        (("niah_single", "--sweep", "policy=full", "--policy", "snapkv"), "not for sweeps"),
    ],
)
def test_a_wrong_request_gets_one_sentence(longreach, arguments: tuple[str, ...], said: str) -> None:
    done = longreach(*arguments, code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
