"""A sweep does every arm's examples once, stops what is hopeless, and marks what nothing beats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.errors import InputError
from longreach.evaluate.frontier import front, marks, undominated
from longreach.evaluate.grid import Point, parse_grid
from longreach.evaluate.metrics.efficiency import Cost
from longreach.evaluate.page import write_page
from longreach.evaluate.parquet import write_parquet
from longreach.evaluate.prompt import ideal
from longreach.evaluate.respond import Response
from longreach.evaluate.results import Results, read_results
from longreach.evaluate.run import label
from longreach.evaluate.sweep import Arm, rounds, sweep
from longreach.evaluate.tasks import Example
from longreach.evaluate.tune import Limits, choose, first_round


@dataclass(eq=False)
class Known:
    """Right about `k` of each ten examples; costs what the point says."""

    asked: Counter[str] = field(default_factory=Counter)
    together: list[int] = field(default_factory=list)
    breaks_at: str = ""

    def columns(self, point: Point) -> Mapping[str, str]:
        return {"model": "known", **point}

    def respond(self, example: Example, points: Sequence[Point]) -> Iterator[list[Response]]:
        self.together.append(len(points))
        for point in points:
            if example.id == self.breaks_at:
                raise InputError("it breaks here")
            self.asked[f"{example.id}/{point['k']}"] += 1
            right = 7 * int(example.id) % 10 < int(point["k"])
            cost = Cost(float(point.get("ttft", "1")), 2.0, 100, 5, 0, int(point.get("bytes", "10")))
            yield [Response(ideal(question) if right else "nothing", cost) for question in example.questions]


def arms_of(text: str, source: Known) -> list[Arm]:
    return [Arm(point, source) for point in parse_grid(text, ("k", "ttft", "bytes")).points()]


def test_every_arm_does_every_example_once_and_arms_of_a_source_are_asked_together(make, tmp_path: Path) -> None:
    known = Known()
    task = make("niah_single", n=6)
    with Results(tmp_path / "r.jsonl") as results:
        arms = arms_of("k=1,5,10", known)
        seen: list[tuple[int, int, bool]] = []
        assert sweep(task, arms, results, progress=lambda *step: seen.append(step)) == 18
    assert set(known.asked.values()) == {1}
    assert known.together == [3] * 6
    assert [sum(arm.scores.values()) for arm in arms] == [1, 3, 6]
    assert seen[-1] == (18, 18, True)


def test_a_sweep_that_broke_goes_on_and_ends_the_same(make, tmp_path: Path) -> None:
    task = make("niah_single", n=6)
    with Results(tmp_path / "whole.jsonl") as results:
        sweep(task, whole := arms_of("k=1,5", Known()), results)
    with Results(tmp_path / "r.jsonl") as results, pytest.raises(InputError, match="breaks"):
        sweep(task, arms_of("k=1,5", Known(breaks_at="3")), results)
    known = Known()
    with Results(tmp_path / "r.jsonl") as results:
        sweep(task, again := arms_of("k=1,5", known), results)
    assert set(known.asked) == {f"{example}/{k}" for example in (3, 4, 5) for k in (1, 5)}
    assert [arm.scores for arm in again] == [arm.scores for arm in whole]


def test_arms_that_are_the_same_are_refused(make, tmp_path: Path) -> None:
    known = Known()
    with Results(tmp_path / "r.jsonl") as results, pytest.raises(InputError, match="k=3 and k=3 are the same"):
        sweep(make("niah_single", n=2), [Arm({"k": "3"}, known), Arm({"k": "3"}, known)], results)
    assert not known.asked


def test_arms_that_are_surely_worse_and_no_cheaper_stop(make, tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl") as results:
        arms = arms_of("k=0,10; bytes=5,10,20", Known())
        sweep(make("niah_single", n=32), arms, results, rule=undominated)
    stopped = {arm.name for arm in arms if arm.stopped}
    assert stopped == {"k=0, bytes=5", "k=0, bytes=10", "k=0, bytes=20"}
    assert {len(arm.lines) for arm in arms if arm.stopped} == {8}
    assert {len(arm.lines) for arm in arms if not arm.stopped} == {32}
    assert [mark.name for mark in marks("t", arms) if mark.best] == ["k=10, bytes=5"]


def test_an_arm_that_is_cheaper_is_kept_however_bad(make, tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl") as results:
        known = Known()
        arms = [Arm(point, known) for point in ({"k": "0", "bytes": "1"}, {"k": "10", "bytes": "9"})]
        sweep(make("niah_single", n=16), arms, results, rule=undominated)
    assert not any(arm.stopped for arm in arms)
    assert all(mark.best for mark in marks("t", arms))


@given(st.integers(1, 500), st.integers(1, 40))
def test_rounds_grow_and_end_at_all(total: int, first: int) -> None:
    ends = rounds(total, first)
    assert ends[-1] == total
    assert ends == sorted(set(ends))
    assert ends[0] == min(first, total)


_VALUE = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


@given(st.lists(_VALUE, min_size=1, max_size=20))
def test_the_front_is_what_nothing_beats_and_beats_all_else(values) -> None:
    on = front(values)
    assert any(on)
    chosen = [value for value, best in zip(values, on, strict=True) if best]

    def covers(a, b) -> bool:
        return a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2]

    assert not any(a != b and covers(a, b) for a in chosen for b in chosen)
    assert all(any(covers(a, value) for a in chosen) for value in values)


def test_times_that_are_nearly_the_same_make_no_front() -> None:
    assert front([(0.9, 1.00, 5), (0.5, 0.99, 5)]) == [True, True]
    assert front([(0.9, 1.00, 5), (0.5, 0.99, 5)], slack=1.05) == [True, False]
    assert front([(0.9, 1.00, 5), (0.5, 0.90, 5)], slack=1.05) == [True, True]
    assert front([(0.9, 1.00, 5), (0.9, 0.99, 5)], slack=1.05) == [True, True]


def test_tuning_finds_the_best_within_its_limits_for_a_part_of_the_cost(make, tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl") as results:
        arms = arms_of("k=0..9/10; bytes=5,50", Known())
        limits = Limits(ttft=1.5, kv_bytes=20)
        task = make("niah_single", n=100)
        sweep(task, arms, results, rule=limits.better_half, first=first_round(len(arms), 100))
    choice = choose(arms, limits, 100)
    assert dict(choice.arm.point) == {"k": "9", "bytes": "5"}
    assert choice.score.mean == pytest.approx(0.9)
    assert choice.cost < 0.25
    assert 0.5 < choice.sure <= 1
    assert choice.second is not None


def test_tuning_says_what_is_nearest_where_nothing_keeps_the_limits(make, tmp_path: Path) -> None:
    with Results(tmp_path / "r.jsonl") as results:
        arms = arms_of("k=5; bytes=50,500", Known())
        limits = Limits(kv_bytes=20)
        sweep(make("niah_single", n=8), arms, results, rule=limits.better_half)
    with pytest.raises(InputError, match="the nearest, k=5, bytes=50, takes"):
        choose(arms, limits, 8)


def test_results_are_written_as_parquet_and_as_one_page_that_needs_nothing_else(make, tmp_path: Path) -> None:
    from pyarrow import parquet

    task = make("niah_multikey", n=3, questions=2)
    with Results(tmp_path / "r.jsonl") as results:
        sweep(task, arms := arms_of("k=1,2", Known()), results)
    lines = [line for line in read_results(tmp_path / "r.jsonl") if line["kind"] == "example"]
    write_parquet(tmp_path / "r.parquet", lines, {"command": "here"})
    table = parquet.read_table(tmp_path / "r.parquet")
    assert table.num_rows == 2 * 3 * 2
    assert {"task", "score", "cost.kv_bytes", "configuration.k"} <= {*table.column_names}
    assert sum(table["score"].to_pylist()) == sum(2 * line["score"] for line in lines)
    assert json.loads(table.schema.metadata[b"longreach"]) == {"command": "here"}
    found = marks(label(task), arms)
    write_page(tmp_path / "page.html", found, {"command": "</script><b>"})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("</script>") == 2
    told = page.split('id="data">')[1].split("</script>")[0].replace("<\\/", "</")
    assert [mark["name"] for mark in json.loads(told)["marks"]] == ["k=1", "k=2"]


@pytest.mark.thorough
def test_the_picture_is_a_png(make, tmp_path: Path) -> None:
    from longreach.evaluate.figure import write_png

    task = make("niah_single", n=3)
    with Results(tmp_path / "r.jsonl") as results:
        sweep(task, arms := arms_of("k=1,2", Known()), results)
    found = marks(label(task), arms)
    for made in (found, [replace(mark, ttft=None) for mark in found]):
        write_png(tmp_path / "f.png", made)
        assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "f.png").unlink()
