"""Measuring a model: every way of reuse on the same prompts, against reading them as a whole."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from longreach.config import Settings
from longreach.engine import Completion
from longreach.engine.card import Card, Measured
from longreach.engine.gate import fingerprint_of, measurable
from longreach.engine.paged import PagedEngine
from longreach.engine.passages import Passages
from longreach.engine.stores import open_store
from longreach.engine.ways import EXACT, ways
from longreach.errors import InputError, ModelError, UnsupportedError
from longreach.evaluate.continuations import along, begun
from longreach.evaluate.gate.material import Asked
from longreach.evaluate.gate.prompts import ANSWER, STOPS, Asking, askings
from longreach.evaluate.gate.relocation import relocation_error
from longreach.evaluate.metrics.answers import plain
from longreach.evaluate.metrics.fidelity import agreement_where_sure, kl_divergence
from longreach.evaluate.provenance import provenance
from longreach.evaluate.statistics import estimate
from longreach.kv.coding import name_of
from longreach.model.adapter import weights_of


@dataclass
class _Found:
    """What was seen of one way so far."""

    kl: list[float] = field(default_factory=list)
    agreed: list[bool] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)

    def measured(self, way: str, made_of: str) -> Measured:
        kl = estimate(self.kl)
        agreement = statistics.mean(self.agreed) if self.agreed else None
        return Measured(
            way,
            made_of,
            round(kl.mean, 5),
            round(kl.high, 5),
            None if agreement is None else round(agreement, 5),
            round(statistics.mean(self.answers), 4),
            round(statistics.median(self.ttft), 6),
        )


@dataclass(frozen=True)
class _Exact:
    """A prompt that was read as a whole."""

    seconds: float
    answer: Completion
    log_p: np.ndarray


def possible(engine: PagedEngine, specs: Sequence[str]) -> dict[str, str]:
    """Those of `specs` that the model can go, with what they are made of; the exact one always among them. Raises
    SpecError."""
    told = {spec: ways.make(spec).made_of(engine) for spec in dict.fromkeys([EXACT, *specs])}
    return {spec: made_of for spec, made_of in told.items() if made_of is not None}


def measure(
    engine: PagedEngine,
    asked: Sequence[Asked],
    specs: Sequence[str],
    settings: Settings,
    material: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Card:
    """The card of a model that keeps no passages yet (`reuse="off"`), by the answers to `asked`, each read in every one
    of `specs` that it can go. The engine is of no other use afterwards. Raises SpecError, UnsupportedError for a
    model whose layers do not all see the whole text, InputError where no prompt fits into its context, ModelError where
    its memory does not hold what is to be reused."""
    assert engine.passages is None
    if not measurable(engine):
        raise UnsupportedError(
            f"{engine.model} has layers that do not see all of the text: what reuse costs it cannot be measured, and "
            "only what prompts begin with is reused"
        )
    fingerprint = fingerprint_of(engine)
    chosen = possible(engine, specs)
    prompts = askings(engine, asked)
    if not prompts:
        raise InputError(f"no prompt of the gate fits into the {engine.context_length} tokens of {engine.model}")
    engine.quicken()
    found = {spec: _Found() for spec in chosen}
    seconds: list[float] = []
    moved = relocation_error(engine, [token for part in prompts[0].parts for token in part.token_ids])
    with TemporaryDirectory(prefix="longreach-gate-") as folder:
        kept = {
            spec: _kept(engine, spec, settings, Path(folder) / (made_of or "own")) for spec, made_of in chosen.items()
        }
        try:
            for number, prompt in enumerate(prompts):
                progress(number, len(prompts))
                exact = _exact(engine, prompt)
                seconds.append(exact.seconds)
                for spec, passages in kept.items():
                    engine.passages = passages
                    _compare(engine, prompt, exact, found[spec])
            progress(len(prompts), len(prompts))
        finally:
            engine.passages = None
            for passages in filter(None, kept.values()):
                passages.clear()
    rows = tuple(found[spec].measured(spec, made_of) for spec, made_of in chosen.items())
    return Card(
        fingerprint,
        weights_of(engine.loaded.model),
        engine.model,
        " ".join(name_of(each) for each in (engine.loaded.dtype, engine.pool.keys.dtype)),
        engine.loaded.device.type,
        material,
        len(prompts),
        len(found[EXACT].kl),
        len(found[EXACT].agreed),
        moved,
        round(statistics.median(seconds), 4),
        rows,
        provenance(),
    )


def _kept(engine: PagedEngine, spec: str, settings: Settings, folder: Path) -> Passages | None:
    """What an engine that goes this way keeps, and where; the engine itself keeps none again."""
    chosen = settings.model_copy(update={"store": folder})
    ways.make(spec).begin(engine, lambda: open_store(engine.loaded, chosen, engine.pool.keys.dtype))
    kept, engine.passages = engine.passages, None
    return kept


def _exact(engine: PagedEngine, prompt: Asking) -> _Exact:
    engine.passages = None
    _forget_prompts(engine)
    seconds, answer = begun(engine, prompt.parts, ANSWER, STOPS[prompt.form])
    return _Exact(seconds, answer, along(engine, prompt.parts, answer.token_ids))


def _compare(engine: PagedEngine, prompt: Asking, exact: _Exact, found: _Found) -> None:
    """Read a prompt once more, where all that can be reused of it is at hand."""
    _forget_prompts(engine)
    if engine.passages is None:
        begun(engine, prompt.opening, 1)
    else:
        engine.read_ahead(prompt.parts)
        engine.passages.store.flush()
    seconds, answer = begun(engine, prompt.parts, ANSWER, STOPS[prompt.form])
    if engine.passages is not None and answer.usage.reused_tokens < prompt.reusable:
        raise ModelError("the memory for keys and values does not hold what is to be reused: give it more, or ask less")
    log_q = along(engine, prompt.parts, exact.answer.token_ids)
    found.ttft.append(seconds / exact.seconds)
    found.kl += kl_divergence(exact.log_p, log_q).tolist()
    found.agreed += agreement_where_sure(exact.log_p, log_q).tolist()
    found.answers.append(plain(answer.text) == plain(exact.answer.text))


def _forget_prompts(engine: PagedEngine) -> None:
    """Let go of the prompts that were read as a whole; passages stay."""
    if engine.scheduler.prefix is not None:
        engine.scheduler.prefix.clear()
