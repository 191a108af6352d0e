"""How sharply later tokens attend to text that stands side by side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Temper:
    """Logits over `temperature`, and the log-sum-exp of all such text together times `scale` (Yang et al. 2025,
    arXiv 2502.05431). 1 and 1 change nothing."""

    temperature: float = 1.0
    scale: float = 1.0
