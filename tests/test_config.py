"""Settings: which source wins, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from longreach.config import load_settings
from longreach.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_arguments_win_over_the_environment_and_that_over_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "longreach.toml").write_text('k = 3\nmodel = "from-file"\nretriever = "bm25"\n')
    monkeypatch.setenv("LONGREACH_K", "4")
    monkeypatch.setenv("LONGREACH_MODEL", "from-environment")
    settings = load_settings(k=5, model=None)
    assert (settings.k, settings.model, settings.retriever) == (5, "from-environment", "bm25")


def test_the_working_folders_file_wins_over_the_users(folder: Path) -> None:
    (folder / "config" / "longreach").mkdir(parents=True)
    (folder / "config" / "longreach" / "longreach.toml").write_text("k = 7\nprompt_tokens = 512\n")
    (folder / "longreach.toml").write_text("k = 3\n")
    settings = load_settings()
    assert (settings.k, settings.prompt_tokens) == (3, 512)


@pytest.mark.parametrize(
    ("text", "said"),
    [("kay = 3", "no setting is called 'kay'; known: library"), ("k = 0", "setting k = 0"), ("k = ", "cannot be read")],
)
def test_a_wrong_setting_is_named(folder: Path, text: str, said: str) -> None:
    (folder / "longreach.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_settings()


def test_a_key_is_not_shown_with_the_settings() -> None:
    assert "secret" not in repr(load_settings(api_key="secret"))
