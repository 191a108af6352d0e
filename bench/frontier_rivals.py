"""What `frontier.py` hands to kvpress and takes back: the same examples and model one way, answers the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from harness import Bar, Row, at_least
from longreach.engine.paged import PagedEngine
from longreach.evaluate.metrics.answers import ANSWER_METRICS
from longreach.evaluate.prompt import prompt
from longreach.evaluate.run import label, shown
from longreach.evaluate.statistics import LEVEL, compare, estimate
from longreach.evaluate.sweep import Arm
from longreach.evaluate.tasks import Task

PRESSES = {"snapkv": "SnapKVPress", "streaming_heads": "StreamingLLMPress"}
"""What kvpress calls our policies."""


@dataclass
class Rival:
    """A method of another library on one task: scores by example, and the most bytes that its cache held."""

    task: str
    policy: str
    scores: dict[str, float] = field(default_factory=dict)
    kv_bytes: int = 0


def dump(folder: Path, engine: PagedEngine, made: Sequence[tuple[Task, int]]) -> None:
    """Write `examples.jsonl`, a line a question with its prompt's tokens, and the model as transformers keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "examples.jsonl").open("w", encoding="utf-8") as file:
        for task, number in made:
            for example in islice(task.examples(), number):
                for at, question in enumerate(example.questions):
                    line = {
                        "task": label(task),
                        "example": example.id,
                        "question": at,
                        "ids": engine.encode(prompt(example, at)),
                        "answers": question.answers,
                        "metric": question.metric,
                        "max_tokens": question.max_tokens,
                        "ends": sorted(engine.end_tokens),
                    }
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if not (folder / "model").exists():
        from longreach.config import load_settings
        from longreach.model.load import load

        loaded = load(engine.model, cache=load_settings().cache, device="cpu", dtype="float32")
        loaded.model.save_pretrained(folder / "model")
        loaded.tokenizer.save_pretrained(folder / "model")


def read_rivals(file: Path) -> list[Rival]:
    """The methods of a file of `frontier_kvpress.py`, scored as our own answers are."""
    told = json.loads(file.read_text(encoding="utf-8"))
    asked: dict[tuple[str, str, int], Any] = {}
    for raw in (file.parent / "examples.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(raw)
        asked[line["task"], line["example"], line["question"]] = line
    found: dict[tuple[str, str], Rival] = {}
    for line in told["answers"]:
        question = asked[line["task"], line["example"], line["question"]]
        rival = found.setdefault((line["task"], line["policy"]), Rival(line["task"], line["policy"]))
        rival.scores[line["example"]] = ANSWER_METRICS[question["metric"]].score(line["text"], question["answers"])
        rival.kv_bytes = max(rival.kv_bytes, line["kv_bytes"])
    return list(found.values())


def rival_rows(task: str, rivals: Sequence[Rival]) -> list[Row]:
    """Their lines of the table."""
    rows: list[Row] = []
    for rival in rivals:
        if rival.task == task:
            score = estimate(list(rival.scores.values()))
            rows.append(
                {
                    "configuration": rival.policy,
                    "task": shown(task),
                    "score": round(score.mean, 3),
                    "low": round(score.low, 3),
                    "high": round(score.high, 3),
                    "n": score.n,
                    "ttft_s": None,
                    "kv_bytes": rival.kv_bytes,
                    "front": None,
                }
            )
    return rows


def agreement(name: str, arms: Sequence[Arm], rivals: Sequence[Rival]) -> Iterator[Bar]:
    """For each budget of snapkv and window of streaming_heads, whether no difference from kvpress's is sure: 0 lies in
    the interval of paired differences, at a level that allows for how many there are."""
    ours = {}
    for arm in arms:
        method, bracket, numbers = arm.point["policy"].partition("(")
        if method in PRESSES:
            ours[f"kvpress {PRESSES[method]}{bracket}{numbers}"] = arm
    task = arms[0].lines[0]["task"]
    same = [rival for rival in rivals if rival.task == task and rival.policy in ours]
    for rival in same:
        lost = compare(rival.scores, ours[rival.policy].scores, level=1 - (1 - LEVEL) / len(same)).difference
        interval = f"{lost.mean:+.3f} [{lost.low:+.3f}, {lost.high:+.3f}]"
        told = f"{name}: ours less {rival.policy} is {interval}: no more"
        yield at_least(f"{told} than chance", float(lost.low <= 0 <= lost.high), 1.0)
