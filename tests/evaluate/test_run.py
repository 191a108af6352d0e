"""A run can be killed at any moment: nothing is done twice, and what comes out is the same."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from longreach.errors import InputError, UnsupportedError
from longreach.evaluate.baselines import Guesser, Oracle
from longreach.evaluate.metrics.judge import Judge
from longreach.evaluate.report import compare_runs, summarize
from longreach.evaluate.respond import ModelRespondent
from longreach.evaluate.results import Results, read_results
from longreach.evaluate.run import label, run, shown
from longreach.evaluate.tasks import Example
from longreach.tokens import Tokenizer


class Counting(Oracle):
    """An oracle that knows what it was asked, and fails at an example if it shall."""

    def __init__(self, fails_at: str = "") -> None:
        object.__setattr__(self, "asked", Counter())
        object.__setattr__(self, "fails_at", fails_at)

    def respond(self, example: Example):
        if example.id == self.fails_at:  # type: ignore[attr-defined]
            raise InputError("it fails here")
        self.asked[example.id] += 1  # type: ignore[attr-defined]
        return super().respond(example)


def told(lines) -> list[tuple[str, float, list[str]]]:
    """What is the same in every run."""
    examples = [line for line in lines if line["kind"] == "example"]
    return [(line["key"], line["score"], [asked["text"] for asked in line["questions"]]) for line in examples]


def test_what_is_done_is_not_done_again(make, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    counting = Counting()
    with Results(file) as results:
        first = run(make("niah_single"), counting, results, limit=2)
    with Results(file) as results:
        seen: list[tuple[int, int, bool]] = []
        again = run(make("niah_single"), counting, results, progress=lambda *step: seen.append(step))
    assert counting.asked == {"0": 1, "1": 1, "2": 1, "3": 1}
    assert again[:2] == first
    assert seen == [(1, 4, False), (2, 4, False), (3, 4, True), (4, 4, True)]
    runs = [line for line in read_results(file) if line["kind"] == "run"]
    assert len(runs) == 2
    assert {"command", "started", "environment"} <= runs[0].keys()
    assert {line["run"] for line in again} == {line["run"] for line in runs}


def test_more_examples_go_on_where_fewer_ended(make, tmp_path: Path) -> None:
    counting = Counting()
    with Results(tmp_path / "r.jsonl") as results:
        run(make("niah_single", n=2), counting, results)
        run(make("niah_single", n=3), counting, results)
    assert counting.asked == {"0": 1, "1": 1, "2": 1}


def test_another_configuration_or_another_text_is_run_by_itself(make, tmp_path: Path) -> None:
    counting = Counting()
    with Results(tmp_path / "r.jsonl") as results:
        for columns in ({}, {"reuse": "blend"}):
            run(make("niah_single", n=1), counting, results, columns=columns)
        run(make("niah_single", n=1, counter=lambda text: len(text) // 3), counting, results)
        summaries = summarize(results.lines)
    assert counting.asked == {"0": 3}
    assert [summary.configuration.get("reuse") for summary in summaries] == [None, "blend"]


def test_an_error_keeps_what_was_done_before(make, tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl") as results, pytest.raises(InputError, match="fails here"):
        run(make("niah_single"), Counting(fails_at="2"), results)
    assert len(told(read_results(tmp_path / "r.jsonl"))) == 2


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_line_that_was_cut_off_is_run_again(kept: int, make, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    with Results(file) as results:
        whole = told(run(make("niah_single"), Oracle(), results))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    counting = Counting()
    with Results(file) as results:
        assert told(run(make("niah_single"), counting, results)) == whole
    assert counting.asked == {"3": 1}
    assert told(read_results(file)) == whole


def test_one_process_at_a_time_writes_to_a_file(tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl"), pytest.raises(InputError, match="another process"):
        Results(tmp_path / "r.jsonl")
    Results(tmp_path / "r.jsonl").close()


@pytest.mark.parametrize("content", ['{"a": 1}\n', "text\n", '{"kind": "example"}\n', "[]\n"])
def test_a_file_of_something_else_is_left_alone(content: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(content)
    with pytest.raises(InputError, match="line 1"):
        Results(file)
    assert file.read_text() == content


@pytest.mark.thorough
def test_killed_again_and_again_a_run_ends_as_if_it_had_not_been(tmp_path: Path, haystack: Path) -> None:
    script = str(Path(__file__).parent / "counting.py")
    spec = f"niah_multikey(length=600, n=12, questions=2, haystack={str(haystack)!r})"
    begun: Counter[str] = Counter()

    def go(file: Path, seconds: str, kill_after: float | None) -> int:
        process = subprocess.Popen(
            [sys.executable, script, spec, str(file), seconds], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        if kill_after is not None:
            process.stdout.readline()  # it is at work
            time.sleep(kill_after)
            process.kill()
        left, _ = process.communicate()
        begun.update(left.split())
        return process.returncode

    for after in (0.0, 0.12, 0.25, 0.05):
        assert go(tmp_path / "killed.jsonl", "0.1", after) != 0
    before = told(read_results(tmp_path / "killed.jsonl"))
    begun.clear()
    assert go(tmp_path / "killed.jsonl", "0", None) == 0
    assert go(tmp_path / "whole.jsonl", "0", None) == 0
    whole = told(read_results(tmp_path / "whole.jsonl"))
    assert told(read_results(tmp_path / "killed.jsonl")) == whole
    assert before == whole[: len(before)]
    assert before
    assert sum(begun.values()) == len(whole) - len(before) + len(whole)


def test_a_label_says_all_that_an_example_depends_on_and_people_see_what_was_chosen(make, haystack: Path) -> None:
    name = label(make("niah_multikey", keys=5))
    assert name.startswith("niah_multikey(length=2048, seed=0, ")
    assert name == label(make("niah_multikey", keys=5, n=99))
    assert shown(name) == f"niah_multikey(length=2048, haystack={str(haystack)!r}, keys=5)"


def test_summaries_have_intervals_and_costs(make, tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl") as results:
        task = make("niah_multivalue")
        run(task, Oracle(), results)
        run(task, Guesser(task), results)
    good, bad = summarize(read_results(tmp_path / "r.jsonl"))
    assert (good.score.mean, good.score.low, good.score.high, good.score.n) == (1.0, 1.0, 1.0, 4)
    assert (bad.score.mean, bad.chance) == (0.0, 0.0)
    json.dumps([good.as_object(), bad.as_object()])


def test_two_runs_are_compared_task_by_task(make, tmp_path: Path) -> None:
    for name, respondent in (("a", Guesser), ("b", lambda task: Oracle())):
        with Results(tmp_path / f"{name}.jsonl") as results:
            for task in (make("niah_single", n=8), make("kv_retrieval", n=8)):
                run(task, respondent(task), results)
    lines = [read_results(tmp_path / f"{name}.jsonl") for name in "ab"]
    found = compare_runs(*lines)
    assert [each.task.partition("(")[0] for each in found] == ["niah_single", "kv_retrieval"]
    for each in found:
        assert each.difference.difference.mean == 1.0
        assert each.difference.p == pytest.approx(2 / 2**8)
        assert each.corrected == pytest.approx(2 * each.difference.p)
    with pytest.raises(InputError, match="in common"):
        compare_runs(lines[0], [])
    with pytest.raises(InputError, match="several configurations"):
        compare_runs([*lines[0], *lines[1]], lines[1])


def test_answers_to_a_corpus_are_scored_stage_by_stage(make, tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl") as results:
        (line, *_) = run(make("corpus_qa"), Oracle(), results, limit=1)
    scores = line["questions"][0]["scores"]
    assert next(iter(scores)) == "any_answer"
    assert {"nDCG@10", "R@10", "f1", "citation_precision", "k_precision"} <= scores.keys()
    assert all(value == 1.0 for value in scores.values())


def test_a_judge_gives_one_more_score_where_it_has_a_verdict(make, tmp_path: Path) -> None:
    replies = iter(["yes", "no", "perhaps"])
    model: Any = SimpleNamespace(model="judge", generate=lambda *_, **__: [SimpleNamespace(text=next(replies))])
    with Results(tmp_path / "r.jsonl") as results:
        lines = run(make("niah_single"), Oracle(), results, limit=3, judge=Judge(model))
        (summary,) = summarize(lines)
    assert [line["questions"][0]["scores"].get("judge") for line in lines] == [1.0, 0.0, None]
    assert [line["score"] for line in lines] == [1.0, 1.0, 1.0]
    assert (summary.metrics["judge"].mean, summary.metrics["judge"].n) == (0.5, 2)
    assert summary.configuration == {"model": "oracle", "judge": "judge"}


@pytest.mark.thorough
def test_a_models_answer_depends_on_its_example_alone(make, stories: Path) -> None:
    from longreach.engine import Engine

    counter = Tokenizer.from_file(stories / "tokenizer.json")
    task = make("niah_multikey", counter, length=300, n=3, keys=2, questions=2, mode="multi_turn")
    examples = [replace(e, questions=tuple(replace(q, max_tokens=8) for q in e.questions)) for e in task.examples()]
    engine = Engine.load(str(stories), device="cpu", dtype="float32")
    respondent = ModelRespondent(engine)
    forwards = [[response.text for response in respondent.respond(example)] for example in examples]
    backwards = [[response.text for response in respondent.respond(example)] for example in reversed(examples)]
    assert forwards == backwards[::-1]
    first, second = respondent.respond(examples[0])
    assert (first.cost.reused_tokens, second.cost.generated_tokens) == (0, 8)
    assert second.cost.reused_tokens > 250
    assert first.cost.kv_bytes > 0
    kept = ModelRespondent(engine, policy="snapkv(budget=0.25)")
    assert kept.columns["policy"].startswith("snapkv(budget=0.25, window=32, ")
    assert respondent.columns["policy"] == "full"
    assert kept.respond(examples[0])[0].cost.kv_bytes < first.cost.kv_bytes


def test_a_server_takes_no_policy(make) -> None:
    server: Any = SimpleNamespace(model="http://localhost:8080")
    (example,) = make("niah_single", n=1).examples()
    with pytest.raises(UnsupportedError, match="no KV policy"):
        ModelRespondent(server, policy="snapkv").respond(example)
