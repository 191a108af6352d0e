"""Passages that are repaired: some of their tokens are computed again amidst what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from families import CONFIGS, NOT_RELOCATABLE
from families import fresh as network
from longreach.engine import Part, Sampling, postponed
from longreach.engine.paged import PagedEngine
from longreach.engine.postponed import FILE
from longreach.errors import SpecError, UnsupportedError
from longreach.kv.codec import make
from longreach.kv.reuse import reuses
from longreach.kv.store.entry import Named
from longreach.kv.store.key import Key
from longreach.kv.store.store import KVStore
from longreach.model.load import LoadedModel

FILLER = [token % 90 + 4 for token in range(0, 330, 11)]
RELOCATABLE = [family for family in CONFIGS if family not in NOT_RELOCATABLE]


def engine_of(family: str, folder: Path | None = None, method: str = "", **options: int) -> PagedEngine:
    """An engine for a tiny model; with `folder` it keeps passages there, and repairs them by `method`."""
    model = network(family)
    loaded = LoadedModel(family, model, _Numbers(), frozenset(), "", 4000, torch.device("cpu"), torch.float32, 1)
    engine = PagedEngine(loaded, **{"kv_bytes": 64 << 20, "reuse": False, **options})
    if folder is not None:
        codec = Named("raw", make("raw"))
        store = KVStore.open(folder, fingerprint=family, codec=codec, host_bytes=1 << 20, disk_bytes=64 << 20)
        engine.keep_passages(store)
        if method:
            assert engine.passages is not None
            if method.startswith("cache_craft"):
                engine.passages.read_behind(FILLER)
            engine.passages.repair_by(reuses.make(method))
    return engine


class _Numbers:
    """Stands in for a tokenizer."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(chr(97 + token % 26) for token in ids)


def prompt(*passages: int) -> list[Part]:
    """An opening, passages by their seed, and a question."""
    made = [(1, 9), *((100 + seed, 20 + seed) for seed in passages), (2, 7)]
    texts = [torch.randint(3, 97, (n,), generator=torch.Generator().manual_seed(seed)).tolist() for seed, n in made]
    return [Part(tuple(text), passage=0 < at < len(made) - 1) for at, text in enumerate(texts)]


def answer(engine: PagedEngine, parts: list[Part], tokens: int = 6) -> torch.Tensor:
    """Log-probabilities of the written tokens `[tokens]`, every one of which is forced to be the same."""
    bias = {5: 100.0}
    done = engine.start(parts, Sampling(max_tokens=tokens, logit_bias=bias, logprobs=0)).finish()
    assert len(done.logprobs) == tokens
    return torch.tensor([told.chosen.logprob for told in done.logprobs])


def assert_nothing_is_left(engine: PagedEngine) -> None:
    """Once it forgets, every page is free."""
    engine.forget()
    assert engine.pool.used == 0
    engine.pool.check()


@pytest.mark.parametrize("family", RELOCATABLE)
@pytest.mark.parametrize("method", ["full_prefill", "cacheblend(share=1.0)", "cache_craft(share=1.0)"])
@pytest.mark.parametrize("step_tokens", [512, 13])
def test_with_every_token_computed_again_it_is_a_full_prefill(
    family: str, method: str, step_tokens: int, tmp_path: Path
) -> None:
    wanted = answer(engine_of(family), prompt(3, 1, 2))
    engine = engine_of(family, tmp_path, method, step_tokens=step_tokens)
    for _ in range(2):  # what is kept stays as it is
        assert (answer(engine, prompt(3, 1, 2)) - wanted).abs().max() < 1e-4
    apart = answer(engine_of(family, tmp_path), prompt(3, 1, 2))
    assert (apart - wanted).abs().max() > 1e-3


@pytest.mark.parametrize(
    "method", ["gaze(share=0.3)", "epic(share=0.3)", "cacheblend(share=0.3)", "cache_craft(share=0.3)"]
)
def test_what_is_computed_again_brings_the_answer_nearer(method: str, tmp_path: Path) -> None:
    wanted = engine_of("llama").explore(prompt(3, 1, 2)).root
    given = engine_of("llama", tmp_path).explore(prompt(3, 1, 2)).root
    engine = engine_of("llama", tmp_path, method)
    found = engine.explore(prompt(3, 1, 2))
    assert (found.root - wanted).norm() < (given - wanted).norm()
    passages = sum(len(part.token_ids) for part in prompt(3, 1, 2)[1:-1])
    widest = 0.39 if "cacheblend" in method else 0.3  # of more tokens than that, fewer go to the end
    assert abs(found.recomputed_tokens - widest * passages) <= 3


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "gpt_neox"])
def test_what_is_noted_of_a_passage_is_its_attention_to_the_filler(family: str, tmp_path: Path) -> None:
    engine = engine_of(family, tmp_path, "cache_craft(share=0.3)")
    opening, *passages, _ = (list(part.token_ids) for part in prompt(3, 1))
    assert engine.passages is not None
    with torch.inference_mode():
        assert engine.passages.read_ahead(opening, passages) == 44
    model = network(family)
    model.set_attn_implementation("eager")
    for passage in passages:
        segment = engine.passages.store.resident(engine.passages.key(opening, passage))
        assert segment is not None
        assert segment.outward is not None
        with torch.inference_mode():
            attentions = model(torch.tensor([opening + FILLER + passage]), output_attentions=True).attentions
        begin = len(opening) + len(FILLER)
        wanted = torch.stack(attentions)[:, 0, :, begin:, len(opening) : begin].sum(-1).mean((0, 1))
        assert (segment.outward - wanted).abs().max() < 1e-5
        segment.release()


def test_what_is_noted_is_kept_with_the_passage(tmp_path: Path) -> None:
    first = engine_of("llama", tmp_path, "cache_craft(share=0.3)")
    wanted = first.explore(prompt(3, 1, 2))
    assert first.passages is not None
    first.passages.store.close()
    second = engine_of("llama", tmp_path, "cache_craft(share=0.3)")
    found = second.explore(prompt(3, 1, 2))
    assert found.reused_tokens == found.prompt_tokens - 7
    assert found.recomputed_tokens == wanted.recomputed_tokens
    assert (found.root - wanted.root).abs().max() < 1e-4


def test_passages_read_behind_filler_are_others_than_those_without(tmp_path: Path) -> None:
    plain = engine_of("llama", tmp_path)
    given = plain.explore(prompt(3, 1)).root
    assert plain.passages is not None
    plain.passages.store.flush()
    engine = engine_of("llama", tmp_path)
    assert engine.passages is not None
    engine.passages.read_behind(FILLER)
    opening, *passages, _ = (list(part.token_ids) for part in prompt(3, 1))
    assert engine.passages.kept(opening, passages) == [False, False]
    behind = engine.explore(prompt(3, 1)).root
    assert (behind - given).abs().max() > 1e-4
    assert engine.passages.kept(opening, passages) == [True, True]
    assert_nothing_is_left(engine)


def test_without_room_for_filler_the_prompt_is_read_as_a_whole(tmp_path: Path) -> None:
    parts = prompt(3, 1, 2)
    wanted = answer(engine_of("llama"), parts)
    engine = engine_of("llama", tmp_path, "cache_craft(share=0.5)")
    pages = engine.scheduler.pages_for(sum(len(part.token_ids) for part in parts) + 6)
    for more in range(0, 8 * engine.scheduler.pages_for(1), engine.scheduler.pages_for(1)):
        small = engine_of(
            "llama", tmp_path / str(more), "cache_craft(share=1.0)", kv_bytes=(pages + more) * engine.pool.page_bytes
        )
        assert (answer(small, parts) - wanted).abs().max() < 1e-4
        assert_nothing_is_left(small)


def test_others_see_what_is_kept_and_not_what_one_computed_again(tmp_path: Path) -> None:
    parts = prompt(3, 1)
    plain = engine_of("llama", tmp_path).explore(parts).root
    engine = engine_of("llama", tmp_path, "epic(share=0.5)")
    repaired = engine.explore(parts)
    assert (repaired.root - plain).abs().max() > 1e-4
    assert engine.passages is not None
    engine.passages.repair_by(reuses.make("naive"))
    assert (engine.explore(parts).root - plain).abs().max() < 1e-4


def test_pages_of_a_repair_are_free_when_its_request_ends(tmp_path: Path) -> None:
    engine = engine_of("llama", tmp_path, "gaze(share=0.4)")
    answer(engine, prompt(3, 1, 2))
    kept = engine.pool.used
    for order in ((3, 1, 2), (2, 3, 1), (1, 2)):
        answer(engine, prompt(*order))
        assert engine.pool.used == kept
    assert_nothing_is_left(engine)


def test_without_room_for_a_repair_the_prompt_is_read_as_a_whole(tmp_path: Path) -> None:
    parts = prompt(3, 1, 2)
    wanted = answer(engine_of("llama"), parts)
    engine = engine_of("llama", tmp_path, "full_prefill")
    pages = engine.scheduler.pages_for(sum(len(part.token_ids) for part in parts) + 6)
    small = engine_of("llama", tmp_path, "full_prefill", kv_bytes=(pages + 2) * engine.pool.page_bytes)
    assert (answer(small, parts) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("idle", [True, False])
def test_new_passages_are_read_with_the_prompt_and_apart_later(idle: bool, tmp_path: Path) -> None:
    wanted = engine_of("llama").explore(prompt(3, 1, 2)).root
    engine = engine_of("llama", tmp_path, "gaze(share=0.3)")
    assert engine.passages is not None
    engine.passages.postpone()
    first = engine.explore(prompt(3, 1, 2))
    assert (first.root - wanted).abs().max() < 1e-4
    assert (first.reused_tokens, first.recomputed_tokens) == (0, 0)
    while idle and engine.catch_up():
        pass
    second = engine.explore(prompt(1, 3, 4))
    kept = sum(len(part.token_ids) for part in prompt(1, 3)[1:-1])
    assert second.recomputed_tokens > 0
    assert (second.reused_tokens >= kept) == idle
    engine.explore(prompt(5, 6))
    engine.forget()
    assert not engine.catch_up()


def test_what_opened_a_prompt_with_passages_opens_those_that_are_read_as_a_whole(tmp_path: Path) -> None:
    opening = Part(tuple(range(3, 43)))
    known, new = ([opening, *prompt(*passages)[1:]] for passages in ((3, 1), (2, 4)))
    engine = engine_of("llama", tmp_path, "gaze(share=0.3)", reuse=True)
    assert engine.passages is not None
    engine.explore(known)
    engine.passages.postpone()
    found = engine.explore(new)
    assert (found.root - engine_of("llama").explore(new).root).abs().max() < 1e-4
    assert (found.reused_tokens, found.recomputed_tokens) == (len(opening.token_ids), 0)


@pytest.mark.parametrize("kilobytes", [300, 4000])
def test_what_was_explored_gives_back_its_passages(kilobytes: int, tmp_path: Path) -> None:
    engine = engine_of("llama", tmp_path, "epic(share=0.2)", kv_bytes=kilobytes << 10, reuse=True)
    assert engine.passages is not None
    engine.passages.postpone()
    for number in range(30):
        found = engine.explore(prompt(number % 7, number % 5 + 7, number % 3 + 12))
        assert torch.isfinite(found.root).any()
        del found
    assert_nothing_is_left(engine)


@pytest.mark.parametrize("harm", [None, b"rubbish\xff\n", b"0"])
def test_the_next_engine_knows_which_passages_were_met(harm: bytes | None, tmp_path: Path) -> None:
    def recomputed(*passages: int) -> int:
        engine = engine_of("llama", tmp_path, "gaze(share=0.3)")
        assert engine.passages is not None
        engine.passages.postpone()
        return engine.explore(prompt(*passages)).recomputed_tokens

    assert recomputed(3, 1, 2) == 0
    if harm is not None:
        (noted,) = tmp_path.glob(f"*/{FILE}")
        noted.write_bytes(harm + noted.read_bytes())
    assert recomputed(3, 1, 2) > 0
    assert recomputed(7, 8, 2) == 0


def test_what_was_met_long_ago_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postponed, "MOST", 8)
    file = tmp_path / "model" / FILE
    keys = [Key.of("model", [number] * 9) for number in range(100)]
    met = postponed.Met((), "")
    for key in keys:
        assert postponed.Postponed(file).holds_back([key], 9, met)
        assert not postponed.Postponed(file).holds_back([key], 9, met)
        assert len(file.read_text().splitlines()) <= 17
    one = postponed.Postponed(file)
    assert [one.holds_back([key], 9, met) for key in reversed(keys[-8:])] == [False] * 8
    assert one.holds_back([keys[0]], 9, met)
    one.clear()
    assert not file.exists()
    assert one.take() is None


def test_what_a_question_looks_at_is_its_attention() -> None:
    engine = engine_of("llama")
    text = prompt(3, 1, 2)
    ids = [token for part in text for token in part.token_ids]
    found = engine.explore(ids[:-7])
    segment = found.tree.sequence.segments[0]
    with torch.inference_mode():
        (weights,) = engine._runner.look(found.tree.sequence, ids[-7:], [segment])
        model = network("llama")
        model.set_attn_implementation("eager")
        attentions = model(torch.tensor([ids]), output_attentions=True).attentions
    wanted = torch.stack(attentions)[:, 0, :, -7:, : len(segment)].mean((1, 2))
    assert (weights - wanted).abs().max() < 1e-5


def test_what_the_passages_or_the_model_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    engine = engine_of("llama", tmp_path)
    assert engine.passages is not None
    with pytest.raises(UnsupportedError, match="behind filler"):
        engine.passages.repair_by(reuses.make("cache_craft"))
    with pytest.raises(SpecError):
        reuses.make("gaze(share=2)")
    layers = engine.loaded.model.model
    layers.layers = layers.layers[:2]
    with pytest.raises(UnsupportedError, match="layers"):
        engine.passages.repair_by(reuses.make("cacheblend"))
