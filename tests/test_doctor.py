"""`longreach doctor`: what it advises, from reports made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from longreach.cli.doctor import advice_on
from longreach.config import load_settings


def report(**device: Any) -> dict[str, Any]:
    usual = {"chosen": "cpu", "cpu bfloat16": "matrix units", "cpu threads": 8, "cpu cores": 8, "cpu busy": 0.2}
    return {"device": usual | device, "models": {}}


@pytest.mark.parametrize(
    ("busy", "threads", "advised"), [(0.2, 8, False), (4.0, 8, True), (4.0, 1, False), (None, 8, False)]
)
def test_fewer_threads_are_advised_where_other_work_keeps_the_cores_busy(
    busy: float | None, threads: int, advised: bool
) -> None:
    advice = advice_on(report(**{"cpu busy": busy, "cpu threads": threads}), load_settings())
    assert any("OMP_NUM_THREADS=4" in sentence for sentence in advice) is advised


def test_a_processor_without_bfloat16_is_told() -> None:
    assert any("bfloat16" in sentence for sentence in advice_on(report(**{"cpu bfloat16": "none"}), load_settings()))
