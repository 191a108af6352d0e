"""`longreach serve --ray`: what replicas are told, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from longreach.cli import app
from longreach.cli.serve import _told
from longreach.config import load_settings
from longreach.errors import InputError


def test_a_replica_has_the_settings_of_its_front(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    front = load_settings(model="model", cache=Path("models"), reuse_kl=0.25, api_key="secret")
    told = _told(front)
    assert "secret" not in told.values()
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    there = load_settings()
    assert (there.model, there.cache) == (str(tmp_path / "model"), tmp_path / "models")
    assert (there.reuse_kl, there.offline, there.store) == (0.25, front.offline, front.store)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--replicas", "3"], "add --ray"), (["--ray", "--replicas", "0"], "than or equal to 1")],
)
def test_replicas_without_ray_and_none_at_all_are_refused(arguments: list[str], reason: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--folder", str(tmp_path), *arguments])
    assert done.exit_code != 0
    assert reason in (str(done.exception) if isinstance(done.exception, InputError) else done.output)
