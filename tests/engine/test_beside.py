"""Passages side by side: what follows attends to them as APE has it, in whatever step it is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from families import CONFIGS, NOT_RELOCATABLE
from families import fresh as network
from longreach.attention.attend import Scores
from longreach.attention.merge import Part as Merged
from longreach.attention.plain_step import PlainStep
from longreach.engine import Part, Sampling
from longreach.engine.paged import PagedEngine
from longreach.errors import UnsupportedError
from longreach.kv.codec import make
from longreach.kv.reuse import reuses
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.kv.temper import Temper
from longreach.model.bridge import Bridge
from longreach.model.load import LoadedModel

WINDOWED = {"mistral", "gemma2", "gemma3"}
FAMILIES = [family for family in CONFIGS if family not in NOT_RELOCATABLE | WINDOWED]
SHARP = Temper(0.7, 0.8)
ANSWER = [5, 9, 5, 20]


def engine_of(family: str, folder: Path, temper: Temper = SHARP, **options: int) -> PagedEngine:
    loaded = LoadedModel(
        family, network(family), _Numbers(), frozenset(), "", 4000, torch.device("cpu"), torch.float32, 1
    )
    engine = PagedEngine(loaded, **{"kv_bytes": 64 << 20, **options})
    codec = Named("raw", make("raw"))
    engine.keep_passages(KVStore.open(folder, fingerprint=family, codec=codec, host_bytes=1 << 20, disk_bytes=64 << 20))
    assert engine.passages is not None
    engine.passages.repair_by(reuses.make(f"ape(temperature={temper.temperature}, scale={temper.scale})"))
    return engine


class _Numbers:
    """Stands in for a tokenizer."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(chr(97 + token % 26) for token in ids)


def drawn(tokens: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 97, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist())


def prompt(*sizes: int) -> list[Part]:
    passages = [Part(drawn(size, 100 + size), passage=True) for size in sizes]
    return [Part(drawn(9, 1)), *passages, Part(drawn(7, 2))]


class Reference:
    """Keeps every key and value that it is shown, with its position and whether it is of a passage, and attends by the
    paper's formula."""

    def __init__(self, family: str, temper: Temper) -> None:
        self._bridge, self._temper = Bridge(network(family)), temper
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._positions = torch.zeros(0, dtype=torch.long)
        self._passage = torch.zeros(0, dtype=torch.bool)
        self._visible = torch.zeros(0, dtype=torch.bool)

    @torch.inference_mode()
    def read(self, tokens: tuple[int, ...], first: int, *, passage: bool = False) -> torch.Tensor:
        """Log-probabilities after each of `tokens`, which stand from `first` on; one passage sees no other."""
        positions = torch.arange(first, first + len(tokens))
        new = torch.full((len(tokens),), True)
        self._visible = torch.cat([~self._passage if passage else torch.ones_like(self._passage), new])
        self._reading_passage = passage
        self._positions = torch.cat([self._positions, positions])
        self._passage = torch.cat([self._passage, new & passage])
        logits = self._bridge.run(torch.tensor(tokens), positions, self, torch.arange(len(tokens)))
        return logits.float().log_softmax(-1)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Merged:
        if layer in self._kept:
            key, value = torch.cat([self._kept[layer][0], key]), torch.cat([self._kept[layer][1], value])
        self._kept[layer] = key, value
        group = query.shape[1] // key.shape[1]
        keys, values = (x.repeat_interleave(group, 1).transpose(0, 1) for x in (key, value))
        logits = query.transpose(0, 1) @ keys.transpose(1, 2) * scores.scale
        if scores.softcap is not None:
            logits = scores.softcap * torch.tanh(logits / scores.softcap)
        seen = self._visible & (self._positions <= self._positions[-len(query) :, None])
        if self._reading_passage or not self._passage.any():
            weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
            return (weights @ values).transpose(0, 1), weights.new_zeros(query.shape[:2])
        inside = (logits / self._temper.temperature).masked_fill(~(seen & self._passage), -torch.inf)
        outside = logits.masked_fill(~(seen & ~self._passage), -torch.inf)
        mass = torch.stack([inside.logsumexp(-1) * self._temper.scale, outside.logsumexp(-1)]).softmax(0)[..., None]
        output = mass[0] * (inside.softmax(-1) @ values) + mass[1] * (outside.softmax(-1) @ values)
        return output.transpose(0, 1), output.new_zeros(query.shape[:2])


def wanted(family: str, parts: list[Part], temper: Temper = SHARP) -> torch.Tensor:
    """Log-probabilities `[1 + answer, vocab]` after the prompt and after each token of the answer."""
    reference = Reference(family, temper)
    opening, *passages, question = (part.token_ids for part in parts)
    reference.read(opening, 0)
    for passage in passages:
        reference.read(passage, len(opening), passage=True)
    at = len(opening) + max(map(len, passages))
    return reference.read((*question, *ANSWER), at)[len(question) - 1 :]


def explored(engine: PagedEngine, parts: list[Part]) -> torch.Tensor:
    """The same by the engine."""
    found = engine.explore(parts)
    _, others = found.expand([(number - 1, token) for number, token in enumerate(ANSWER)])
    return torch.cat([found.root[None], others])


def answered(engine: PagedEngine, parts: list[Part]) -> list[float]:
    """Log-probabilities of the answer's tokens, as it is written; token 5 again and again."""
    done = engine.start(parts, Sampling(max_tokens=len(ANSWER), logit_bias={5: 100.0}, logprobs=0)).finish()
    return [told.chosen.logprob for told in done.logprobs]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [(21, 23, 22), (30,), (24, 24), (9, 80, 40, 3, 12)])
def test_passages_side_by_side_are_what_the_formula_says(family: str, sizes: tuple[int, ...], tmp_path: Path) -> None:
    engine = engine_of(family, tmp_path)
    for _ in range(2):  # what is kept stays as it is
        assert (explored(engine, prompt(*sizes)) - wanted(family, prompt(*sizes))).abs().max() < 1e-4
    neutral = wanted(family, prompt(*sizes), Temper())
    assert (neutral - wanted(family, prompt(*sizes))).abs().max() > 1e-3


@pytest.mark.parametrize("step_tokens", [512, 4])
def test_an_answer_is_written_as_its_probabilities_say(step_tokens: int, tmp_path: Path) -> None:
    parts = prompt(21, 23, 22)
    reference = Reference("llama", SHARP)
    for at, part in enumerate(parts[:-1]):
        reference.read(part.token_ids, 9 if at else 0, passage=at > 0)
    told = reference.read((*parts[-1].token_ids, 5, 5, 5), 9 + 23)[-4:, 5].tolist()
    engine = engine_of("llama", tmp_path, step_tokens=step_tokens)
    assert answered(engine, parts) == pytest.approx(told, abs=1e-4)
    engine.quicken()
    assert answered(engine, parts) == pytest.approx(told, abs=1e-4)
    engine._runner._kind = PlainStep
    assert answered(engine, parts) == pytest.approx(told, abs=1e-4)


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_requests_do_not_change_each_other(preemption: str, tmp_path: Path) -> None:
    mixed = [prompt(21, 23, 22), [Part(drawn(40, 5))], prompt(22, 21), prompt(21, 23, 22)]
    alone = [answered(engine_of("llama", tmp_path / str(at)), parts) for at, parts in enumerate(mixed)]
    for quick in (False, True):
        engine = engine_of("llama", tmp_path / "all", preemption=preemption)  # type: ignore[arg-type]
        if quick:
            engine.quicken()
        sampling = Sampling(max_tokens=len(ANSWER), logit_bias={5: 100.0}, logprobs=0)
        streams = [engine.start(parts, sampling) for parts in mixed]
        for _ in range(4):
            engine.step()
        if engine.scheduler.running:
            engine.scheduler.preempt(engine.scheduler.running[0])
        for stream, told in zip(streams, alone, strict=True):
            found = [one.chosen.logprob for one in stream.finish().logprobs]
            assert found == pytest.approx(told, abs=1e-4)
        engine.forget()
        assert engine.pool.used == 0
        engine.pool.check()


@pytest.mark.parametrize("family", sorted(WINDOWED))
def test_where_layers_see_a_part_of_the_text_passages_cannot_stand_side_by_side(family: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="side by side"):
        engine_of(family, tmp_path)
