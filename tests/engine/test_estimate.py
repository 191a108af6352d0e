"""What `index --estimate` says beforehand is what `index --read-ahead` writes."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from hashed import open_hashed
from keeping import PASSAGES
from longreach.cli.common import token_counter
from longreach.cli.estimate import estimate, show_estimate
from longreach.cli.reading import keep_read
from longreach.config import Settings, load_settings
from longreach.context.assemble import assemble_chat
from longreach.engine import Part
from longreach.engine.reckoning import Reckoning, tokens_of
from longreach.engine.unloaded import UnloadedEngine
from longreach.errors import ModelError, UnsupportedError
from longreach.kv.store.estimate import usage
from longreach.model.load import load

NEAR = 0.01


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Three documents, two of which say the same, and a file that cannot be read."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, first, last in (("one", 0, 20), ("again", 0, 20), ("two", 10, 36)):
        (folder / f"{name}.txt").write_text("\n\n".join(PASSAGES[first:last]))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nbroken")
    return folder


def settings_of(stories: Path, folder: Path) -> Settings:
    return load_settings(model=str(stories), cache=folder / "cache", library=folder / "notes.library")


@pytest.mark.parametrize(
    "chosen",
    [
        {"REUSE": "naive"},
        {"REUSE": "naive", "CODEC": "int4(group=32)", "ANSWER": "generate"},
        {"REUSE": "epic(share=0.2)", "CODEC": "raw", "KV_DTYPE": "bfloat16"},
        {"REUSE": "naive", "KV_DTYPE": "int8"},
        {"REUSE": "naive", "KV_DTYPE": "int4"},
        {"REUSE": "cache_craft(share=0.15)"},
        {"REUSE": "cache_craft(share=0.15)", "KV_DTYPE": "int8", "CODEC": "int8(group=32)"},
        {"REUSE": "naive", "CODEC": "ladder(2)"},
    ],
    ids=lambda chosen: " ".join(chosen.values()),
)
def test_what_is_said_is_what_is_written(
    stories: Path, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]
) -> None:
    for name, value in {"DEVICE": "cpu", "CACHE": str(tmp_path / "cache"), **chosen}.items():
        monkeypatch.setenv(f"LONGREACH_{name}", value)
    settings = settings_of(stories, tmp_path)
    with open_hashed(settings.library, chunker="fixed(tokens=60)", count=token_counter(settings)) as library:
        told = estimate(settings, [docs], None)
        assert not settings.kv_store.exists()
        library.add([docs])
        done = keep_read(library, settings, [docs])
    gc.collect()  # with the engine its store is closed, and all of it written
    (kept,) = usage(settings.kv_store)
    assert (told.tokens, told.skipped) == (done.tokens, 1)
    assert told.chunks < done.chunks
    assert kept.entries - told.chunks == (2 if "cache_craft" in chosen["REUSE"] else 1)
    assert told.bytes == pytest.approx(kept.bytes, rel=NEAR)


def test_a_model_that_is_not_at_hand_is_one_clear_error(docs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="longreach models fetch"):
        estimate(Settings(cache=tmp_path), [docs], None)
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8})
    )
    with pytest.raises(ModelError, match="tokenizer"):
        estimate(Settings(cache=tmp_path, model=str(tmp_path)), [docs], None)


def test_nothing_to_read_takes_nothing(stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    show_estimate(settings_of(stories, tmp_path), [tmp_path / "docs"], None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["chunks"], told["tokens"], told["beside"], told["bytes"]) == (0, 0, 0, 0)


def test_the_same_passage_is_another_behind_another_opening_and_one_behind_the_same() -> None:
    reckoning = Reckoning(filler=(7, 7, 7))
    for opening, passages in (((1,), ((5, 5), (6,))), ((1,), ((5, 5),)), ((2, 2), ((5, 5),)), ((3,), ())):
        reckoning.add([Part(opening), *(Part(tokens, True) for tokens in passages), Part((9,))])
    assert reckoning.passages == {2: 2, 1: 1}
    assert reckoning.openings == {1: 1, 2: 1}
    assert (tokens_of(reckoning.fillers), tokens_of(reckoning.passages)) == (6, 5)


def test_an_unloaded_engine_reads_as_the_loaded_one_and_answers_nothing(stories: Path, tmp_path: Path) -> None:
    engine, loaded = UnloadedEngine(str(stories), tmp_path), load(str(stories), cache=tmp_path, device="cpu")
    assert engine.files == loaded.fingerprint
    assert engine.context_length == loaded.context_length
    assert engine.parameters == sum(weight.numel() for weight in loaded.model.parameters())
    assert engine.encode(PASSAGES[0]) == loaded.tokenizer(PASSAGES[0])["input_ids"]
    assert engine.decode(engine.tokenize("a red ball")) == "a red ball"
    assert engine.count(PASSAGES[0]) == len(engine.tokenize(PASSAGES[0]))
    with pytest.raises(UnsupportedError, match="not loaded"):
        engine.generate(["Once"])


@pytest.mark.thorough
def test_an_unloaded_gguf_file_reads_as_its_conversion(embedded_cache: Path) -> None:
    (file,) = embedded_cache.rglob("*.gguf")
    one, other = UnloadedEngine(str(file), embedded_cache), UnloadedEngine("embedded", embedded_cache)
    chat = assemble_chat("who?", PASSAGES[:3])
    assert one.parts(chat) == other.parts(chat)
    assert sum(part.passage for part in one.parts(chat)) == 3
    assert (one.parameters, one.context_length) == (other.parameters, other.context_length)
