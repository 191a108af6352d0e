"""The gate: a model reuses what its card allows, and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import fresh as network
from longreach.engine import Engine, Part
from longreach.engine import card as cards
from longreach.engine.card import Bound, Card, Measured, card_file
from longreach.engine.gate import cheapest, fingerprint_of
from longreach.engine.paged import PagedEngine
from longreach.engine.ways import EXACT, specs, tried, ways
from longreach.errors import InputError, ModelError, SpecError, UnsupportedError
from longreach.kv.codec import make
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.adapter import Adapter, weights_of
from longreach.model.load import LoadedModel

GOOD = Measured("naive", "", 0.01, 0.02, 0.995, 0.9, 0.1)
PREFIX = Measured(EXACT, "", 0.0, 0.0, 1.0, 1.0, 0.8)
EVERYTHING = {"cache_craft(share=0.15)": "cache_craft(share=1.0)", "ape": "ape(temperature=1.0, scale=1.0)"}
"""What makes a way exact for one passage, where that is read behind something else or looked at in another way."""
Loads = Callable[..., PagedEngine]


@pytest.fixture
def load(stories: Path, tmp_path: Path) -> Loads:
    """Loads the storyteller with a cache of this test's own."""

    def loaded(**options: object) -> PagedEngine:
        given = {"cache": tmp_path, "device": "cpu", "dtype": "float32", "kv_bytes": 32 << 20, **options}
        engine = Engine.load(str(stories), **given)  # type: ignore[arg-type]
        assert isinstance(engine, PagedEngine)
        return engine

    return loaded


def card_of(engine: PagedEngine, *measured: Measured) -> Card:
    weights = weights_of(engine.loaded.model)
    return Card(fingerprint_of(engine), weights, "m", "float32", "cpu", "x", 9, 90, 60, 0.0, 1.0, (PREFIX, *measured))


def store_card(engine: PagedEngine, cache: Path, *measured: Measured) -> Card:
    card = card_of(engine, *measured)
    card.save(card_file(cache, card.weights, card.fingerprint))
    return card


def test_a_model_without_a_card_keeps_no_passages_and_is_told_so_once(load: Loads) -> None:
    told: list[str] = []
    for _ in range(3):
        engine = load(report=told.append)
        assert (engine.way, engine.passages) == (EXACT, None)
    assert sum("longreach doctor" in sentence for sentence in told) == 1


def test_a_card_within_the_bound_lets_passages_be_kept(load: Loads, tmp_path: Path) -> None:
    store_card(load(reuse="off"), tmp_path, GOOD)
    engine = load()
    assert engine.way == "naive"
    assert engine.passages is not None


@pytest.mark.parametrize(
    "measured",
    [
        replace(GOOD, kl=0.051),
        replace(GOOD, agreement=0.98),
        replace(GOOD, agreement=None),
        replace(GOOD, made_of="another adapter"),
        replace(GOOD, way="a_way_that_was"),
        replace(GOOD, ttft=0.9),
    ],
)
def test_a_way_that_is_worse_than_the_bound_or_was_another_is_not_taken(
    load: Loads, tmp_path: Path, measured: Measured
) -> None:
    store_card(load(reuse="off"), tmp_path, measured)
    assert load().passages is None


def test_the_bound_is_the_users(load: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_card(load(reuse="off"), tmp_path, replace(GOOD, kl=0.2, agreement=0.9))
    assert load().way == EXACT
    monkeypatch.setenv("LONGREACH_REUSE_KL", "0.3")
    monkeypatch.setenv("LONGREACH_REUSE_AGREEMENT", "0.8")
    assert load().way == "naive"


def test_a_card_of_other_numbers_is_not_a_models_own(load: Loads, tmp_path: Path) -> None:
    card = card_of(load(reuse="off"), GOOD)
    card.save(card_file(tmp_path, card.weights, "0" * 32))
    assert load().way == EXACT


def test_a_card_that_comes_with_longreach_holds_for_the_weights_until_there_is_one_of_ones_own(
    load: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(reuse="off")
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(cards, "SHIPPED", shipped)
    replace(card_of(engine, GOOD), fingerprint="of another dtype").save(shipped / "model.json")
    assert load().way == load(kv_dtype="int8").way == "naive"
    assert load(kv_dtype="int4").way == EXACT
    store_card(engine, tmp_path, replace(GOOD, kl=1.0))
    assert load().way == EXACT
    store_card(load(reuse="off", kv_dtype="int4"), tmp_path, GOOD)
    assert load(kv_dtype="int4").way == "naive"


def test_every_card_that_comes_with_longreach_is_of_the_adapter_beside_it() -> None:
    files = sorted(cards.SHIPPED.glob("*.json"))
    assert files
    for file in files:
        card, adapter = Card.load(file), Adapter.load(file.with_suffix(".safetensors"))
        assert card.weights == adapter.base
        assert {one.made_of for one in card.ways if one.way == "adapter"} == {adapter.name}


@pytest.mark.parametrize("damage", ["", "{", '{"format": "longreach-card-0"}', '{"format": "longreach-card-1"}', "[]"])
def test_a_damaged_card_is_none(load: Loads, tmp_path: Path, damage: str) -> None:
    card = store_card(load(reuse="off"), tmp_path, GOOD)
    file = card_file(tmp_path, card.weights, card.fingerprint)
    assert Card.load(file) == card
    file.write_text(damage)
    with pytest.raises(ModelError, match="card"):
        Card.load(file)
    told: list[str] = []
    assert load(report=told.append).way == EXACT
    assert any("longreach doctor" in sentence for sentence in told)


def test_a_way_may_be_named_and_reuse_be_off(load: Loads, tmp_path: Path) -> None:
    assert load(reuse="naive").passages is not None
    store_card(load(reuse="off"), tmp_path, GOOD)
    assert load(reuse="off").passages is None
    assert load(reuse="prefix").passages is None
    with pytest.raises(UnsupportedError, match="adapter"):
        load(reuse="adapter")
    with pytest.raises(SpecError, match="naive"):
        load(reuse="naiv")


measurements = st.builds(
    Measured,
    st.sampled_from(["naive", "gone", "adapter"]),
    st.sampled_from(["", "x"]),
    st.floats(0, 0.1),
    st.just(1.0),
    st.none() | st.floats(0.97, 1),
    st.just(0.5),
    st.floats(0.01, 1.2),
)


@given(st.lists(measurements, max_size=6), st.floats(0, 0.1), st.floats(0.97, 1))
def test_what_is_taken_is_within_the_bound_possible_and_the_soonest(
    storyteller: PagedEngine, rows: list[Measured], kl: float, agreement: float
) -> None:
    card = card_of(storyteller, *rows)
    taken = cheapest(storyteller, card, Bound(kl, agreement))
    fit = [row for row in rows if (row.way, row.made_of) == ("naive", "")]
    fit = [row for row in fit if row.kl <= kl and row.agreement is not None and row.agreement >= agreement]
    soonest = min([PREFIX, *fit], key=lambda row: row.ttft)
    assert taken == soonest.way


@pytest.mark.parametrize("spec", specs())
def test_every_way_gives_one_passage_alone_as_it_is_read_in_full(
    storyteller: PagedEngine, tmp_path: Path, spec: str
) -> None:
    engine = PagedEngine(storyteller.loaded, kv_bytes=32 << 20)
    way = ways.make(EVERYTHING.get(spec, spec))
    if way.made_of(engine) is None:
        assert spec.partition("(")[0] in ("adapter",)
        return
    limits = {"host_bytes": 1 << 20, "disk_bytes": 64 << 20}
    way.begin(engine, lambda: KVStore.open(tmp_path, fingerprint="s", codec=Named("raw", make("raw")), **limits))
    texts = [("Once upon a time, ", False), ("a girl had a red ball. ", True), ("She", False)]
    parts = [Part(tuple(engine.tokenize(text)), passage) for text, passage in texts]
    for _ in range(2):
        assert (storyteller.explore(parts).root - engine.explore(parts).root).abs().max() < 1e-4


@pytest.mark.parametrize("spec", specs())
def test_a_model_whose_keys_cannot_be_moved_goes_the_exact_way_alone(spec: str) -> None:
    loaded = LoadedModel("gpt2", network("gpt2"), None, frozenset(), "", 64, torch.device("cpu"), torch.float32, 0)
    engine = PagedEngine(loaded, kv_bytes=4 << 20)
    assert (ways.make(spec).made_of(engine) is None) == (spec != EXACT)


def test_a_way_that_is_not_tried_unasked_can_be_named(load: Loads) -> None:
    unasked = [spec for spec in specs() if spec not in tried()]
    assert "cacheblend(share=0.15)" in unasked
    for spec in unasked:
        engine = load(reuse=spec)
        assert engine.way == spec
        assert engine.passages is not None


def test_a_bound_that_is_none_is_refused(load: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGREACH_REUSE_AGREEMENT", "1.5")
    with pytest.raises(InputError, match="reuse_agreement"):
        load()
