"""What the image and the compose file name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from longreach.cli import app
from longreach.config import Settings

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_every_setting_of_a_container_is_a_setting(name: str) -> None:
    named = re.findall(r"LONGREACH_(\w+)", (ROOT / name).read_text(encoding="utf-8"))
    assert {setting.lower() for setting in named} <= set(Settings.model_fields)


def test_every_option_of_a_container_is_an_option_of_serve() -> None:
    told = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8") + (ROOT / "Dockerfile").read_text(encoding="utf-8")
    used = [*re.findall(r"longreach serve ([^\n]*)", text), *re.findall(r'"serve", ([^\n]*)', text)]
    options = {option for command in used for option in re.findall(r"--[a-z]+", command)}
    assert options == {"--host", "--ray", "--replicas"}
    assert all(option in told for option in options)


def test_what_the_image_is_made_of_is_sent_to_its_build() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    copied = re.findall(r"^COPY ([^-\n]+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for names in copied for name in names.split()} == sent
    assert all((ROOT / name).exists() for name in sent)
