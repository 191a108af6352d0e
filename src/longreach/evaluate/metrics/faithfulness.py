"""Whether an answer keeps to what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from longreach.evaluate.metrics.answers import plain


def k_precision(text: str, knowledge: Sequence[str]) -> float:
    """The share of the answer's words that stand in the passages (Adlakha et al. 2023, arXiv 2307.16877), each as often
    as it stands there; 1 for an answer without words, which claims nothing."""
    said = Counter(plain(text).split())
    if not said:
        return 1.0
    known = Counter(word for passage in knowledge for word in plain(passage).split())
    return sum((said & known).values()) / sum(said.values())
