"""The adapters that come with Longreach: for reading passages apart (docs/train.md says how each was made)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longreach.model.adapter import Adapter, weights_of


def adapter_for(model: Any) -> Adapter | None:
    """The adapter that was made for the weights of `model`, if there is one."""
    base = weights_of(model)
    known = (Adapter.load(file) for file in sorted(Path(__file__).parent.glob("*.safetensors")))
    return next((adapter for adapter in known if adapter.base == base), None)
