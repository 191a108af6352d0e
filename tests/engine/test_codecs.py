"""A codec that is fitted to its model, from the setting to an answer after a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from keeping import ASKED, OPENING, PASSAGES, prompt, store_of
from longreach.cli.codec import fit_codec
from longreach.config import Settings
from longreach.engine import Engine, Part
from longreach.engine.gate import fingerprint_of
from longreach.engine.paged import PagedEngine
from longreach.engine.stores import CODEC, expected_codec, find_codec, origin_of, profile_file
from longreach.errors import InputError, SpecError
from longreach.evaluate.codecs.case import read, spans_of
from longreach.evaluate.codecs.cost import Cost, add_case
from longreach.evaluate.codecs.fit import fit_profile
from longreach.evaluate.gate.material import Asked
from longreach.evaluate.metrics.fidelity import kl_divergence
from longreach.kv.codec import Profile, make

CHOSEN = [3, 17, 30]


pytestmark = pytest.mark.usefixtures("patient")


def cases_of(engine: PagedEngine) -> list[list[Part]]:
    """Prompts that the passages in `CHOSEN` are no part of."""
    others = [at for at in range(len(PASSAGES)) if at not in CHOSEN]
    return [prompt(engine, others[at : at + 6]) for at in range(0, len(others), 6)]


@pytest.fixture(scope="module")
def profile(storyteller: PagedEngine) -> Profile:
    loaded = storyteller.loaded
    cases = [read(loaded, *spans_of(parts)) for parts in cases_of(storyteller)]
    return fit_profile(loaded, storyteller.bridge.rotations, cases, fingerprint_of(storyteller))


def opened(stories: Path, folder: Path, told: list[str] | None = None) -> PagedEngine:
    """An engine as the settings make it."""
    report = None if told is None else told.append
    options = {"device": "cpu", "dtype": "float32", "reuse": "naive", "cache": folder}
    engine = Engine.load(str(stories), report=report, **options)  # type: ignore[arg-type]
    assert isinstance(engine, PagedEngine)
    return engine


@pytest.mark.parametrize(("codec", "smaller", "most"), [("ladder(0)", 1.2, 0.05), ("fisher(0)", 1.1, 0.05)])
def test_a_fitted_codec_named_in_the_settings_serves_an_answer_after_a_restart(
    stories: Path,
    storyteller: PagedEngine,
    profile: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
    smaller: float,
    most: float,
) -> None:
    profile.save(profile_file(tmp_path, profile.ladder.fingerprint))
    sizes, roots = [], []
    for spec in ("int8(group=64)", codec):
        monkeypatch.setenv("LONGREACH_CODEC", spec)
        told: list[str] = []
        first = opened(stories, tmp_path, told)
        assert not told
        exact = first.explore(prompt(first, CHOSEN))
        store_of(first).close()
        again = opened(stories, tmp_path)
        sizes.append(store_of(again).stats().disk.bytes)
        assert store_of(again).stats().disk.entries == len(CHOSEN) + 1
        found = again.explore(prompt(again, CHOSEN))
        passages = sum(len(part.token_ids) for part in prompt(again, CHOSEN)[:-1])
        assert (found.reused_tokens, found.loaded_tokens) == (passages, passages)
        assert store_of(again).stats().disk.damaged == 0
        roots.append(float(kl_divergence(exact.root.numpy(), found.root.numpy())))
        store_of(again).close()
    assert sizes[0] > smaller * sizes[1]
    assert 0 < roots[1] < most


def test_a_codec_that_was_not_fitted_yet_is_told_of_and_another_is_taken(
    stories: Path, storyteller: PagedEngine, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGREACH_CODEC", "ladder(2)")
    told: list[str] = []
    engine = opened(stories, tmp_path, told)
    assert len(told) == 1
    assert "doctor" in told[0]
    engine.explore(prompt(engine, CHOSEN))
    store_of(engine).close()
    kept = store_of(opened(stories, tmp_path)).stats().disk.entries
    monkeypatch.setenv("LONGREACH_CODEC", "int8")
    assert store_of(opened(stories, tmp_path)).stats().disk.entries == kept > 0


def test_what_another_profile_wrote_is_passed_over(
    stories: Path, storyteller: PagedEngine, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGREACH_CODEC", "ladder(2)")
    file = profile_file(tmp_path, profile.ladder.fingerprint)
    profile.save(file)
    engine = opened(stories, tmp_path)
    engine.explore(prompt(engine, CHOSEN))
    store_of(engine).close()
    loaded = storyteller.loaded
    cases = [read(loaded, *spans_of(parts)) for parts in cases_of(storyteller)[:3]]
    fit_profile(loaded, storyteller.bridge.rotations, cases, profile.ladder.fingerprint).save(file)
    again = opened(stories, tmp_path)
    assert again.explore(prompt(again, CHOSEN)).reused_tokens == 0
    store_of(again).flush()
    stats = store_of(again).stats()
    assert (stats.foreign, stats.disk.damaged) == (len(CHOSEN) + 1, 0)


@pytest.mark.thorough
def test_the_doctor_fits_a_codec_and_tells_what_it_costs(
    storyteller: PagedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = PagedEngine(replace(storyteller.loaded, context_length=4096), kv_bytes=64 << 20)
    asked = [Asked("Who was happy?", tuple(PASSAGES[at : at + 8])) for at in range(0, 28, 4)]
    monkeypatch.setattr("longreach.cli.ask.make_engine", lambda settings: engine)
    monkeypatch.setattr("longreach.cli.gate.material_for", lambda *given: (asked, "stories"))
    settings = Settings(cache=tmp_path, codec="ladder(2)")
    assert find_codec(settings, fingerprint_of(engine)) is None
    fit_codec(settings, 7, own_library=False, as_json=True)
    told = json.loads(capsys.readouterr().out)
    default, fitted = told["codecs"]
    assert (default["codec"], fitted["codec"]) == ("int8(group=64)", "ladder(2)")
    assert default["kl"] < fitted["kl"]
    assert default["bytes_per_token"] > 2 * fitted["bytes_per_token"]
    assert Path(told["file"]) == profile_file(tmp_path, fingerprint_of(engine))
    assert find_codec(settings, fingerprint_of(engine)) is not None
    origin = origin_of(engine.loaded.fingerprint, engine.loaded.dtype, engine.pool.keys.dtype)
    assert expected_codec(settings, engine.pool.keys.dtype, origin).spec == "ladder(2)"
    fit_codec(settings.model_copy(update={"codec": "int4"}), 7, own_library=False, as_json=False)
    assert "bytes a token" in capsys.readouterr().out
    asked = asked[:1]
    with pytest.raises(InputError, match="too few prompts"):
        fit_codec(settings, 1, own_library=False, as_json=True)


def test_what_opens_prompts_is_kept_in_eight_bits_whatever_passages_are_kept_in(
    profile: Profile, storyteller: PagedEngine, tmp_path: Path
) -> None:
    profile.save(profile_file(tmp_path, "x"))
    case = read(storyteller.loaded, *spans_of(prompt(storyteller, CHOSEN)))
    first = case.spans[0][0]
    named = find_codec(Settings(cache=tmp_path, codec="ladder(2)"), profile.ladder.fingerprint)
    assert named is None  # under another name
    profile.save(profile_file(tmp_path, profile.ladder.fingerprint))
    named = find_codec(Settings(cache=tmp_path, codec="ladder(2)"), profile.ladder.fingerprint)
    assert named is not None
    opening = case.keys[:, :, :first], case.values[:, :, :first]
    assert named.encode(*opening, 0) == make("int8(group=64)").encode(*opening)
    for (keys, values), start, method in ((opening, 0, make("int8")), (case.kv[:2], first, profile.make("ladder(2)"))):
        data = named.encode(keys, values, start)
        pairs = zip(named.open(data).whole(), method.decode(method.encode(keys, values, start)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("spec", [f"{name}({level})" for name in ("fisher", "ladder") for level in range(5)])
def test_what_a_fitted_codec_is_expected_to_take_is_what_it_takes(
    profile: Profile, storyteller: PagedEngine, tmp_path: Path, spec: str
) -> None:
    settings, kept = Settings(cache=tmp_path, codec=spec), torch.float32
    origin = origin_of(storyteller.loaded.fingerprint, kept, kept)
    replace(profile, origin=origin).save(profile_file(tmp_path, profile.ladder.fingerprint))
    expected = expected_codec(settings, kept, origin)
    case = read(storyteller.loaded, *spans_of(prompt(storyteller, CHOSEN)))
    written = told = 0.0
    for number, (start, end) in enumerate(case.spans):
        written += len(expected.passages.encode(*case.passage(number)))
        told += expected.passages.bytes_per_token(storyteller.bridge.shapes, kept, end - start) * (end - start)
    assert expected.spec == spec
    assert told == pytest.approx(written, rel=0.15)


def test_a_codec_that_was_fitted_to_something_else_is_expected_to_be_the_default(
    profile: Profile, tmp_path: Path
) -> None:
    settings = Settings(cache=tmp_path, codec="ladder(2)")
    replace(profile, origin="this").save(profile_file(tmp_path, profile.ladder.fingerprint))
    profile_file(tmp_path, "later").write_bytes(b"damaged")
    assert expected_codec(settings, torch.float32, "this").spec == "ladder(2)"
    for origin in ("that", ""):
        assert expected_codec(settings, torch.float32, origin).spec == CODEC


@pytest.mark.parametrize("damage", [b"", b"LRKV and no more"])
def test_a_damaged_profile_is_none(profile: Profile, tmp_path: Path, damage: bytes) -> None:
    settings = Settings(cache=tmp_path, codec="ladder(2)")
    file = profile_file(tmp_path, "x")
    file.parent.mkdir()
    file.write_bytes(damage)
    assert find_codec(settings, "x") is None


def test_a_codec_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(SpecError, match="no codec is called 'zip'"):
        find_codec(Settings(codec="zip"), "x")


def test_the_codec_of_the_settings_is_named_in_full_whichever_way_it_is_written() -> None:
    names = {
        named.spec
        for text in ("int8", "int8(64)", "int8(group=64)")
        if (named := find_codec(Settings(codec=text), "x"))
    }
    assert names == {"int8(group=64)"}


def test_what_a_codec_costs_is_nothing_where_it_gives_back_every_bit(
    storyteller: PagedEngine, profile: Profile
) -> None:
    loaded = storyteller.loaded
    case = read(loaded, *spans_of(prompt(storyteller, CHOSEN)))
    assert case.prompt[case.spans[-1][1] :] == list(storyteller.tokenize(ASKED))
    assert case.spans[0][0] == len(storyteller.tokenize(OPENING))
    codecs = {"raw": make("raw"), **{spec: profile.make(spec) for spec in ("ladder(0)", "ladder(4)")}}
    costs = {name: Cost() for name in codecs}
    add_case(loaded, case, codecs, costs, ["raw"])
    assert costs["raw"].answers == [case.answer]
    assert costs["raw"].kl[0] == pytest.approx(0, abs=1e-6)
    assert all(costs["raw"].agreed)
    assert 0 < costs["ladder(0)"].kl[0] < costs["ladder(4)"].kl[0]
    assert (
        costs["raw"].bytes_per_token > 4 * costs["ladder(0)"].bytes_per_token > 4 * costs["ladder(4)"].bytes_per_token
    )
    assert np.isfinite(costs["ladder(4)"].kl).all()
