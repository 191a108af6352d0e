"""An engine's first prompt, which nobody waits for."""

from __future__ import annotations

import contextlib
from typing import Any

from longreach.engine import Completion, Engine, Sampling
from longreach.errors import PromptTooLongError
from longreach.serve.driver import Runs
from longreach.serve.errand import Errand, ErrandEngine

PROMPT = "The quick brown fox jumps over the lazy dog, and then it goes home. " * 8
SECONDS = 600.0


def warm_up(engine: Engine, runs: Runs) -> Completion | None:
    """Have an engine that computes here take its quick form and answer once; None where it does neither."""
    quicken: Any = getattr(engine, "quicken", None)
    if quicken is None:
        return None
    runs.call(quicken).result()
    with contextlib.suppress(PromptTooLongError):
        return ErrandEngine(engine, runs, Errand("warm-up", SECONDS)).start(PROMPT, Sampling(max_tokens=8)).finish()
    return None
