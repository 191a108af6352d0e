"""Where tests find models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def stories() -> Path:
    """The folder of stories260k, a trained Llama of 260 thousand parameters."""
    models = Path(os.environ.get("LONGREACH_MODELS", ROOT / "../shared/models"))
    folder = models / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: set LONGREACH_MODELS")
    return folder.resolve()
