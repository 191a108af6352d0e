"""Tokens that leave on the way through the layers: the others are what they would be if those had only been hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from families import CONFIGS, NOT_RELOCATABLE
from families import fresh as network
from longreach.attention import narrowing
from longreach.attention.attend import Scores
from longreach.attention.gathered import Gathered
from longreach.attention.merge import Part
from longreach.attention.narrowing import Narrow
from longreach.attention.step import Row
from longreach.attention.tree import nodes
from longreach.engine.paged import PagedEngine
from longreach.errors import UnsupportedError
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence
from longreach.model.load import LoadedModel
from longreach.model.narrow import layers_of

BEFORE, AGAIN = 9, 70


def drawn(tokens: int, seed: int) -> list[int]:
    return torch.randint(3, 97, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def engine_of(family: str, **changes: int) -> PagedEngine:
    model = network(family, **changes)
    loaded = LoadedModel(family, model, None, frozenset(), "", 400, torch.device("cpu"), torch.float32, 0)
    return PagedEngine(loaded, kv_bytes=16 << 20)


def text_of(engine: PagedEngine) -> Sequence:
    """What was read before: the last tokens are others than those that are computed again."""
    shapes = engine.bridge.shapes
    sequence = Sequence(engine.pool, shapes.layers, shapes.kv_heads)
    with torch.inference_mode():
        for part in (drawn(BEFORE, 1), drawn(40, 2), drawn(AGAIN - 40, 3)):
            sequence.reserve(len(part))
            engine._runner.read([sequence], [part], None)
            sequence.sealed = True
    return sequence


def leave(shares: list[float]) -> Narrow:
    """Lets a share of those who are left go on at each layer."""
    chance = torch.Generator().manual_seed(4)

    def narrow(layer: int, fresh: torch.Tensor, stored: torch.Tensor) -> torch.Tensor | None:
        assert fresh.shape == stored.shape
        return None if shares[layer] == 1.0 else torch.rand(fresh.shape[2], generator=chance) < shares[layer]

    return narrow


class Hiding:
    """All tokens go to the end; what becomes of those who should have left is seen by nobody."""

    def __init__(self, engine: PagedEngine, sequence: Sequence, narrow: Narrow) -> None:
        seen = Gathered.of(Row(sequence, 0, AGAIN, sequence.position - AGAIN, 0), before=False)
        assert seen is not None
        self.seen, self.rotations, self.narrow = seen, engine.bridge.rotations, narrow
        self.on = torch.arange(AGAIN)
        self.went: list[tuple[list[int], torch.Tensor]] = []

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        keys, values = (x.clone() for x in self.seen.bring(layer, self.rotations[layer]))
        fresh = torch.stack([key.transpose(0, 1), value.transpose(0, 1)])
        stored = torch.stack([keys[:, BEFORE:], values[:, BEFORE:]])
        go = self.narrow(layer, fresh[:, :, self.on], stored[:, :, self.on])
        self.on = self.on if go is None else self.on[go]
        keys[:, BEFORE + self.on], values[:, BEFORE + self.on] = fresh[0][:, self.on], fresh[1][:, self.on]
        self.went.append((self.on.tolist(), torch.stack([keys[:, BEFORE:], values[:, BEFORE:]])))
        at, mine = torch.arange(BEFORE + AGAIN), BEFORE + torch.arange(AGAIN)[:, None]
        sees = at <= mine
        if scores.window is not None:
            sees &= at > mine - scores.window
        return nodes(query, keys.transpose(0, 1), values.transpose(0, 1), sees, scores)


@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in NOT_RELOCATABLE])
@pytest.mark.parametrize("shares", [[1.0, 0.5, 0.5], [1.0, 0.3, 1.0], [0.6, 1.0, 0.0], [1.0, 1.0, 1.0]])
def test_who_stays_is_what_it_would_be_if_the_others_were_hidden(family: str, shares: list[float]) -> None:
    engine = engine_of(family)
    sequence, tokens = text_of(engine), drawn(AGAIN, 7)
    before = [engine.pool.keys.clone(), engine.pool.values.clone()]
    hiding = Hiding(engine, sequence, leave(shares))
    with torch.inference_mode():
        found = engine._runner.narrow(sequence, tokens, leave(shares))
        positions = torch.arange(BEFORE, BEFORE + AGAIN)
        engine.bridge.run(torch.tensor(tokens), positions, hiding, torch.tensor([0]))
    assert found.tokens == hiding.went[1][0]
    for layer, (_, both) in enumerate(hiding.went):
        wanted = both[:, :, found.tokens]
        assert (found.keys[layer] - wanted[0]).abs().max() < 1e-4
        assert (found.values[layer] - wanted[1]).abs().max() < 1e-4
    assert torch.equal(engine.pool.keys, before[0])
    assert torch.equal(engine.pool.values, before[1])


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma2"])
def test_all_may_leave(family: str) -> None:
    engine = engine_of(family)
    with torch.inference_mode():
        found = engine._runner.narrow(text_of(engine), drawn(AGAIN, 7), leave([1.0, 0.0, 1.0]))
    assert found.tokens == []
    assert found.keys.shape[0] == engine.bridge.shapes.layers


def test_where_nobody_is_left_the_rest_is_as_it_was_stored() -> None:
    found = []
    for shares in ([1.0, 0.5, 0.0, 1.0, 1.0], [1.0, 0.5, 1.0, 1.0, 1.0]):
        engine = engine_of("llama", num_hidden_layers=5)
        with torch.inference_mode():
            found.append(engine._runner.narrow(text_of(engine), drawn(AGAIN, 7), leave(shares)))
            found.append(engine._runner.narrow(text_of(engine), drawn(AGAIN, 7), leave([1.0, 1.0, 0.0, 1.0, 1.0])))
    gone, stored, gone_later, _ = found
    assert gone.tokens == gone_later.tokens
    assert torch.equal(gone.values[:2], gone_later.values[:2])
    assert torch.equal(gone.values[2:], stored.values[2:, :, gone.tokens])
    assert gone.values.shape == gone_later.values.shape


def test_the_quick_form_of_a_model_changes_nothing() -> None:
    found = []
    for quick in (False, True):
        engine = engine_of("llama")
        sequence = text_of(engine)
        if quick:
            engine.quicken()
            assert engine.bridge.fast is not None
        with torch.inference_mode():
            found.append(engine._runner.narrow(sequence, drawn(AGAIN, 7), leave([1.0, 0.5, 0.5])))
    assert found[0].tokens == found[1].tokens
    assert (found[0].keys - found[1].keys).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_on_other_devices_it_is_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for form in (narrowing.of_block, narrowing.plain_of_block):
        monkeypatch.setattr(narrowing, "of_block", form)
        engine = engine_of(family)
        with torch.inference_mode():
            found.append(engine._runner.narrow(text_of(engine), drawn(AGAIN, 7), leave([1.0, 0.5, 0.5])))
    assert found[0].tokens == found[1].tokens
    assert (found[0].keys - found[1].keys).abs().max() < 1e-5
    assert (found[0].values - found[1].values).abs().max() < 1e-5


def test_what_lacks_entries_in_some_streams_cannot_be_computed_again() -> None:
    engine = engine_of("llama")
    sequence = text_of(engine)
    sequence.segments[0] = _without_one_entry(sequence.segments[0])
    with pytest.raises(UnsupportedError, match="other entries"):
        engine._runner.narrow(sequence, drawn(AGAIN, 7), leave([1.0, 1.0, 1.0]))


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    model = network("llama")
    assert [layer.self_attn.layer_idx for layer in layers_of(model)] == [0, 1, 2]  # type: ignore[union-attr]
    model.model.layers = model.model.layers[:2]
    with pytest.raises(UnsupportedError, match="layers of LlamaForCausalLM"):
        layers_of(model)


def _without_one_entry(segment: Segment) -> Segment:
    segment.entries = segment.entries - np.array([[1, 0]], np.int32)
    return segment
