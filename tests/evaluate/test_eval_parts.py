"""What tasks are run with: readers whose models reuse in other ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hashed import open_hashed
from longreach.cli.eval_parts import AXES, Parts, settings_at
from longreach.config import load_settings
from longreach.engine import Engine, Part
from longreach.engine.paged import PagedEngine
from longreach.errors import InputError


def test_what_is_evaluated_does_not_forget_what_the_user_has_kept(stories: Path, tmp_path: Path) -> None:
    settings = load_settings(model=str(stories), cache=tmp_path, device="cpu", dtype="float32", reuse="naive")
    prompt = [Part((5, 6, 7)), Part((8, 9, 10, 11), passage=True), Part((12,))]
    mine = Engine.load(str(stories), cache=tmp_path, device="cpu", dtype="float32", reuse="naive")
    assert isinstance(mine, PagedEngine)
    assert mine.passages is not None
    assert mine.read_ahead(prompt) == 4
    mine.passages.store.flush()
    evaluated = Parts(settings, "text", "", "").engine
    assert isinstance(evaluated, PagedEngine)
    assert evaluated.read_ahead(prompt) == 4  # it does not even see it
    evaluated.forget()
    later = Engine.load(str(stories), cache=tmp_path, device="cpu", dtype="float32", reuse="naive")
    assert later.read_ahead(prompt) == 0


def test_a_sweep_over_reuse_runs_each_way_on_an_engine_of_its_own_over_the_same_weights(
    stories: Path, tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(model=str(stories), cache=tmp_path, device="cpu", dtype="float32", reuse="off")
    parts = Parts(settings, "text", "", "")
    library = open_hashed(tmp_path / "l.library")
    monkeypatch.setattr(parts, "_library", lambda task, settings: library)
    assert "reuse" in AXES
    points = [{"reuse": way} for way in ("naive", "prefix", "naive")]
    sources = parts.sources(make("corpus_qa"), points)
    told = [source.columns(point)["reuse"] for source, point in zip(sources, points, strict=True)]
    assert told == ["naive", "prefix", "naive"]
    engines = [parts._engine_at(settings_at(settings, point)) for point in points]
    assert engines[0] is engines[2]
    one, other = engines[:2]
    assert isinstance(one, PagedEngine)
    assert isinstance(other, PagedEngine)
    assert one.loaded is other.loaded
    assert (one.keeps_passages, other.keeps_passages) == (True, False)
    with pytest.raises(InputError, match="reuse changes nothing"):
        parts.sources(make("niah_single"), points)
