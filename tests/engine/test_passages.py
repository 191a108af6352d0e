from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from families import fresh as network
from longreach.engine import Message, Part, Sampling
from longreach.engine.chat import chat_parts, render
from longreach.engine.paged import PagedEngine
from longreach.errors import UnsupportedError
from longreach.kv.codec import make
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.adapter import Adapter
from longreach.model.load import LoadedModel

OPENING = "Once upon a time, there was a little girl named Lily. "
PASSAGES = [
    "She had a red ball and a small dog. The dog liked to run in the park. ",
    "One day a big bird came to the tree. It sang a song for the girl. ",
    "Her mother made a cake with apples and gave her a piece of it. ",
]
ASKED = "Then the girl"
Made = Callable[..., PagedEngine]

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def keeping(storyteller: PagedEngine, tmp_path: Path) -> Made:
    """Makes engines that keep passages in one folder."""

    def made(adapter: Adapter | None = None, codec: str = "raw", **options: int) -> PagedEngine:
        engine = PagedEngine(storyteller.loaded, **{"kv_bytes": 32 << 20, **options})
        limits = {"host_bytes": 1 << 20, "disk_bytes": 64 << 20}
        store = KVStore.open(tmp_path, fingerprint="stories", codec=Named(codec, make(codec)), **limits)
        engine.keep_passages(store, adapter)
        return engine

    return made


def prompt(engine: PagedEngine, order: list[int], asked: str = ASKED) -> list[Part]:
    pieces = [(OPENING, False), *((PASSAGES[at], True) for at in order), (asked, False)]
    return [Part(tuple(engine.tokenize(text)), passage) for text, passage in pieces]


def written(engine: PagedEngine, parts: list[Part], tokens: int = 12) -> list[int]:
    return list(engine.generate([parts], max_tokens=tokens)[0].token_ids)


def test_an_engine_that_nobody_has_lets_go_of_its_memory_when_all_is_written(keeping: Made, tmp_path: Path) -> None:
    engine = keeping()
    written(engine, prompt(engine, [0, 1, 2]))
    assert engine.passages is not None
    pool, store = weakref.ref(engine.pool), weakref.ref(engine.passages.store)
    del engine
    gc.collect()
    gc.collect()  # what was written when the engine went could go only after it
    assert (pool(), store()) == (None, None)
    assert len(list(tmp_path.rglob("*.kv1"))) == len(PASSAGES) + 1


def changing(engine: PagedEngine) -> Adapter:
    """An adapter that changes something."""
    names = ["model.layers.1.self_attn.v_proj", "model.layers.2.mlp.up_proj"]
    adapter = Adapter.fresh(engine.loaded.model, names, 2, 2.0, "passages", 0)
    generator = torch.Generator().manual_seed(0)
    for part in adapter.up.values():
        part.data.copy_(torch.randn(part.shape, generator=generator) * 0.5)
    return adapter


def test_one_passage_alone_is_a_full_prefill(storyteller: PagedEngine, keeping: Made) -> None:
    engine = keeping()
    parts = prompt(engine, [1])
    exact, apart = (each.explore(parts).root for each in (storyteller, engine))
    assert (exact - apart).abs().max() < 1e-4
    again = engine.explore(parts)
    assert (exact - again.root).abs().max() < 1e-4
    assert again.reused_tokens == sum(len(part.token_ids) for part in parts[:2])


def test_a_passage_is_read_once_wherever_it_stands(keeping: Made) -> None:
    engine = keeping()
    first = written(engine, prompt(engine, [0, 1, 2]))
    other = engine.generate([prompt(engine, [2, 0])], max_tokens=12)[0]
    assert other.usage.reused_tokens == sum(len(part.token_ids) for part in prompt(engine, [2, 0])[:-1])
    assert written(engine, prompt(engine, [0, 1, 2])) == first


def test_what_is_kept_is_the_kv_of_the_passage_behind_the_opening(keeping: Made, original: Any) -> None:
    engine = keeping()
    parts = prompt(engine, [0, 1, 2])
    written(engine, parts, 1)
    assert engine.passages is not None
    engine.passages.store.flush()
    opening = parts[0].token_ids
    for part in parts[1:-1]:
        entry = engine.passages.store.get(engine.passages.key(opening, part.token_ids))
        assert entry is not None
        assert entry.first == len(opening)
        with torch.inference_mode():
            cache = original(torch.tensor([[*opening, *part.token_ids]]), use_cache=True).past_key_values
        for layer, (keys, values) in enumerate(zip(entry.keys, entry.values, strict=True)):
            assert (cache.layers[layer].keys[0, :, len(opening) :] - keys).abs().max() < 1e-4
            assert (cache.layers[layer].values[0, :, len(opening) :] - values).abs().max() < 1e-4


def test_what_was_read_is_there_after_a_restart(keeping: Made) -> None:
    engine = keeping()
    first = written(engine, prompt(engine, [0, 1, 2]))
    assert engine.passages is not None
    engine.passages.store.close()
    later = keeping()
    done = later.generate([prompt(later, [0, 1, 2])], max_tokens=12)[0]
    assert list(done.token_ids) == first
    assert done.usage.reused_tokens == sum(len(part.token_ids) for part in prompt(later, [0, 1, 2])[:-1])


def test_what_comes_up_from_below_pages_is_told(keeping: Made) -> None:
    engine = keeping()
    first = engine.generate([prompt(engine, [0, 1])], max_tokens=2)[0]
    assert (first.usage.loaded_tokens, first.usage.computed_tokens) == (0, first.usage.prompt_tokens)
    again = engine.generate([prompt(engine, [0, 1])], max_tokens=2)[0]
    asked = len(engine.tokenize(ASKED))
    assert (again.usage.loaded_tokens, again.usage.computed_tokens) == (0, asked)
    assert engine.passages is not None
    engine.passages.store.close()
    later = keeping()
    found = later.explore(prompt(later, [0, 2]))
    opening, passage, new, _ = (len(part.token_ids) for part in prompt(later, [0, 2]))
    assert (found.loaded_tokens, found.reused_tokens) == (opening + passage, opening + passage)
    assert found.prompt_tokens == opening + passage + new + asked
    done = (last := keeping()).generate([prompt(last, [0, 1])], max_tokens=2)[0]
    assert done.usage.loaded_tokens == done.usage.reused_tokens == done.usage.prompt_tokens - asked


def test_an_engine_knows_which_passages_it_keeps(storyteller: PagedEngine, keeping: Made) -> None:
    engine = keeping()
    written(engine, prompt(engine, [1]), 1)
    assert engine.kept(prompt(engine, [0, 1, 2])) == [False, True, False]
    assert storyteller.kept(prompt(engine, [0, 1, 2])) == []
    assert (engine.keeps_passages, storyteller.keeps_passages) == (True, False)


def test_reading_ahead_leaves_nothing_to_read(keeping: Made) -> None:
    engine = keeping()
    tokens = sum(len(part.token_ids) for part in prompt(engine, [0, 1, 2]) if part.passage)
    assert engine.read_ahead(prompt(engine, [0, 1, 2])) == tokens
    assert engine.read_ahead(prompt(engine, [2, 1, 0])) == 0
    done = engine.generate([prompt(engine, [1, 2])], max_tokens=2)[0]
    assert done.usage.reused_tokens == done.usage.prompt_tokens - len(engine.tokenize(ASKED))


def test_who_reads_much_ahead_reads_it_through_the_quick_form(keeping: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = keeping()
    first = len(prompt(engine, [0])[1].token_ids)
    monkeypatch.setattr("longreach.engine.paged.QUICK_AFTER_READING", first + 1)
    engine.read_ahead(prompt(engine, [0]))
    engine.read_ahead(prompt(engine, [0]))
    assert engine.bridge.fast is None
    engine.read_ahead(prompt(engine, [1]))
    assert engine.bridge.fast is not None


def test_answers_through_the_quick_form_with_an_adapter_are_those_with_hooks(keeping: Made) -> None:
    slow = keeping(changing(keeping()), codec="raw")
    wanted = slow.explore(prompt(slow, [0, 2, 1])).root
    slow.forget()
    quick = keeping(changing(slow))
    quick.quicken()
    assert quick.bridge.fast is not None
    found = quick.explore(prompt(quick, [0, 2, 1]))
    assert found.reused_tokens == 0
    assert (wanted - found.root).abs().max() < 1e-3
    again = quick.explore(prompt(quick, [1, 0]))
    assert again.reused_tokens > 0


def test_many_requests_hold_a_passage_once(keeping: Made) -> None:
    engine = keeping()
    engine.read_ahead(prompt(engine, [0, 1, 2]))
    written(engine, prompt(engine, [0, 1, 2]), 1)
    before = engine.pool.used
    streams = [engine.start(prompt(engine, order), Sampling(max_tokens=8)) for order in ([0, 1], [1, 0], [2, 0, 1]) * 8]
    assert engine.pool.used == before  # nothing but what is asked will take pages
    for stream in streams:
        stream.finish()
    assert engine.pool.used == before
    engine.forget()
    assert engine.pool.used == 0
    engine.pool.check()


def test_without_room_for_passages_the_prompt_is_read_as_a_whole(storyteller: PagedEngine, keeping: Made) -> None:
    engine = keeping(kv_bytes=storyteller.pool.page_bytes * 5 * 4 * 12)
    parts = prompt(engine, [0, 1, 2])
    assert sum(len(part.token_ids) for part in parts) > 6 * 16
    assert len(written(engine, parts, 6)) == 6
    engine.pool.check()


def test_a_request_that_had_to_wait_goes_on_as_it_was(keeping: Made) -> None:
    engine = keeping()
    alone = written(engine, prompt(engine, [0, 2]), 24)
    stream = engine.start(prompt(engine, [0, 2]), Sampling(max_tokens=24), priority=1)
    for _ in range(5):
        next(stream)
    engine.scheduler.preempt(engine.scheduler.running[0])
    assert list(stream.finish().token_ids) == alone


def test_samples_of_one_prompt_share_its_passages(keeping: Made) -> None:
    engine = keeping()
    alone = written(engine, prompt(engine, [0, 1]))
    done = engine.generate([prompt(engine, [0, 1])], max_tokens=12, n=3)[0]
    assert [list(one.token_ids) for one in done.samples] == [alone] * 3


def test_what_is_read_with_an_adapter_is_other_kv(keeping: Made) -> None:
    plain = keeping()
    adapter = changing(plain)
    adapted = keeping(adapter)
    parts = prompt(plain, [0, 1])
    roots = [engine.explore(parts).root for engine in (plain, adapted)]
    assert (roots[0] - roots[1]).abs().max() > 1e-3
    assert (keeping(adapter).explore(parts).root - roots[1]).abs().max() < 1e-4  # from the disk


def test_a_model_whose_keys_cannot_be_moved_keeps_none(tmp_path: Path) -> None:
    model = network("gpt2")
    loaded = LoadedModel("gpt2", model, None, frozenset(), "", 64, torch.device("cpu"), torch.float32, 0)
    engine = PagedEngine(loaded, kv_bytes=4 << 20)
    store = KVStore.open(tmp_path, fingerprint="x", codec=Named("raw", make("raw")), host_bytes=0, disk_bytes=0)
    with pytest.raises(UnsupportedError, match="moved"):
        engine.keep_passages(store)


def test_a_conversation_in_parts_is_the_conversation(storyteller: PagedEngine) -> None:
    tokenizer = storyteller.loaded.tokenizer
    texts = ("One passage.", "Another one, <s>marked</s>.")
    asked = Message("user", f"{texts[0]}\n\n{texts[1]}\n\nQuestion: What?", texts)
    parts = chat_parts(tokenizer, [Message("system", "Answer."), asked])
    assert [part.passage for part in parts] == [False, True, True, False]
    spelt = "".join(tokenizer.decode(part.token_ids, skip_special_tokens=True) for part in parts)
    whole = render(tokenizer, [Message("system", "Answer."), Message("user", asked.content)])
    assert spelt.split() == whole.replace("<s>", "< s>").replace("</s>", "< /s>").split()
