"""A model's card: what each way of reuse costs it, as it was measured on real passages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from longreach.cache import put
from longreach.engine.ways import EXACT
from longreach.errors import ModelError

FORMAT = "longreach-card-1"
FOLDER = "cards"
"""In the cache."""
SHIPPED = Path(__file__).parent.parent / "model" / "adapters"
"""Where the cards lie that come with Longreach, beside the adapters."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a user puts up with: a mean KL of at most `kl` nats over the answers' tokens, and the same likeliest token
    in at least `agreement` of those of which the exact run is sure."""

    kl: float = 0.05
    agreement: float = 0.99


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way costs, against reading the same prompts as a whole: mean `kl` in nats over the answers' tokens, with
    the upper end of its 95 % interval; `agreement` and `answers`, the shares of sure tokens and of whole answers that
    stay the same; `ttft`, the median share of the time to the first token that is left where everything is at hand.
    `made_of`: see `Way`. `agreement` is None where the exact run was sure of no token."""

    way: str
    made_of: str
    kl: float
    kl_high: float
    agreement: float | None
    answers: float
    ttft: float

    def within(self, bound: Bound) -> bool:
        """Whether a user with this bound may be given this."""
        return self.way == EXACT or (
            self.kl <= bound.kl and self.agreement is not None and self.agreement >= bound.agreement
        )


@dataclass(frozen=True)
class Card:
    """What was measured of the model with this `fingerprint` (`longreach.model.identity`), whose weights, in any dtype,
    are `weights` (`longreach.model.adapter.weights_of`). `dtype` is that of weights and KV.

    `material` names what was asked in `prompts` prompts, whose answers had `tokens` tokens; of `sure` of them the exact
    run gave the likeliest at least one half. `relocation` is the worst KL, in nats, of a token after text that was
    moved, None for a model whose keys cannot be moved; `full` the median of seconds to the first token of a prompt that
    was read as a whole.
    """

    fingerprint: str
    weights: str
    model: str
    dtype: str
    device: str
    material: str
    prompts: int
    tokens: int
    sure: int
    relocation: float | None
    full: float
    ways: tuple[Measured, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def within(self, bound: Bound) -> list[Measured]:
        """The ways that keep to the bound, the one with the shortest wait first."""
        return sorted((one for one in self.ways if one.within(bound)), key=lambda one: one.ttft)

    def save(self, file: Path) -> None:
        """Write it, in the place of what was there. Raises ModelError where that is not possible, DiskFullError."""
        told = json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, indent=1)
        put(file, f"{told}\n".encode())

    @classmethod
    def load(cls, file: Path) -> Card:
        """Read what `save` wrote. Raises ModelError where there is none, or it is damaged or of another version."""
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(told, dict) or told.pop("format", None) != FORMAT:
                raise ModelError(
                    f"{file} is no card of this version of Longreach: let `longreach doctor` measure again"
                )
            return TypeAdapter(cls).validate_python(told)
        except (OSError, ValueError, ValidationError) as error:
            raise ModelError(f"the card {file} cannot be read: {error}") from None


def card_file(cache: Path, weights: str, fingerprint: str) -> Path:
    """Where the card of a model lies."""
    return cache / FOLDER / f"{weights}-{fingerprint}.json"


def find_card(cache: Path, weights: str, fingerprint: Callable[[], str], shipped: bool = True) -> Card | None:
    """The card of a model, if there is one of this version: the user's own for its very numbers, else, if `shipped`
    holds for them, one that comes with Longreach for its weights. `fingerprint` is asked for only where it tells them
    apart."""
    own = list((cache / FOLDER).glob(f"{weights}-*.json"))
    if own and (card := _read(card_file(cache, weights, fingerprint()))) is not None:
        return card
    return next((card for card in _shipped() if card.weights == weights), None) if shipped else None


def _shipped() -> Iterable[Card]:
    return (card for file in sorted(SHIPPED.glob("*.json")) if (card := _read(file)) is not None)


def _read(file: Path) -> Card | None:
    try:
        return Card.load(file)
    except ModelError:
        return None
