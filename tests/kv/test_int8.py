"""Keys and values of 8 bits: near what they were, and what was rounded once is not rounded again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import keeping
from kv.chunks import open_store
from longreach.config import Settings
from longreach.engine import Engine, Sampling
from longreach.engine.gate import fingerprint_of
from longreach.engine.memory import pool_for
from longreach.engine.paged import PagedEngine
from longreach.engine.stores import codec_of
from longreach.errors import InputError, UnsupportedError
from longreach.evaluate.continuations import along
from longreach.evaluate.metrics.fidelity import agreement_where_sure, fidelity
from longreach.kv.codec import make
from longreach.kv.compact import drop, gathered
from longreach.kv.int8 import BOUND, LEAST, MOST, coded, numbers_of, parts_of
from longreach.kv.pool import EMPTY, PagePool
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence
from longreach.kv.store.entry import Entry, Named
from longreach.kv.store.pages import gather, place
from longreach.kv.swap import swap_in, swap_out

LAYERS, HEADS, DIM, VALUE_DIM, SIZE = 2, 3, 8, 6, 4
NUMBERS = st.floats(-(2.0**120), 2.0**120, width=32)


def entry_of(tokens: int, seed: int = 0) -> Entry:
    made = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(LAYERS, HEADS, tokens, dim, generator=made) * 3 for dim in (DIM, VALUE_DIM))
    return Entry(keys, values, first=5)


def pool_of(pages: int = 200) -> PagePool:
    return PagePool(pages, SIZE, DIM, dtype=torch.int8, value_dim=VALUE_DIM)


def sequence_of(pool: PagePool, tokens: int) -> Sequence:
    sequence = Sequence(pool, LAYERS, HEADS)
    sequence.add(place(pool, range(tokens), entry_of(tokens)))
    return sequence


def stored_of(segment: Segment) -> list[torch.Tensor]:
    """All that the pool has stored of a whole segment, copied."""
    where = segment.pool.index(segment.table.reshape(-1))
    columns = segment.table.shape[2] * SIZE
    every = [x[where].view(LAYERS, HEADS, columns, -1) for x in segment.pool.stored]
    return [x[:, :, : len(segment)].clone() for x in every]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_number_is_off_by_no_more_than_documented(rows: list[list[float]]) -> None:
    x = torch.tensor(rows)
    found, _ = numbers_of(parts_of(x, x, torch.int8))
    most = x.abs().amax(-1, keepdim=True).double() * BOUND + LEAST * MOST
    assert bool(((found.double() - x.double()).abs() <= most).all())


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_what_was_rounded_once_is_not_rounded_again(rows: list[list[float]]) -> None:
    codes, scales = coded(torch.tensor(rows))
    again, others = coded(codes.float() * scales)
    assert torch.equal(codes, again)
    assert torch.equal(scales[codes.any(-1)], others[codes.any(-1)])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_an_entry_that_is_not_finite_is_read_as_none(wrong: float) -> None:
    x = torch.tensor([[1.0, wrong, 2.0], [1.0, 2.0, 3.0]])
    found, _ = numbers_of(parts_of(x, x, torch.int8))
    assert not found[0].isfinite().any()
    assert found[1].isfinite().all()


def test_pages_take_about_half_of_those_in_16_bits() -> None:
    eight, sixteen = (PagePool(8, 16, 64, dtype=dtype) for dtype in (torch.int8, torch.bfloat16))
    assert eight.page_bytes == 16 * (64 * 2 + 2 * 2 + 4) == sum(x[0].nbytes for x in (*eight.stored, eight.positions))
    assert eight.page_bytes < 0.53 * sixteen.page_bytes


def test_scrubbed_pages_are_numbers_again() -> None:
    pool = pool_of(4)
    pages = pool.take(1)
    pool.write(pool.index(pages), torch.full((1, SIZE, DIM), float("nan")), torch.ones(1, SIZE, VALUE_DIM))
    assert not pool.read(0)[0].isfinite().any()
    pool.scrub(pages)
    assert all(x.isfinite().all() for x in pool.read(0))


def test_a_swap_brings_back_every_bit() -> None:
    pool = pool_of()
    sequence = sequence_of(pool, 11)
    before = stored_of(sequence.segments[0])
    swapped = swap_out(sequence)
    other = place(pool, range(15), entry_of(15, seed=1))
    swap_in(sequence, swapped)
    assert same(stored_of(sequence.segments[0]), before)
    other.release()
    sequence.release()
    assert pool.used == 0


def test_what_stays_after_a_drop_is_what_it_was() -> None:
    pool = pool_of()
    sequence = sequence_of(pool, 14)
    kept = torch.tensor([0, 3, 4, 9, 12, 13])
    before = [tuple(x[:, kept] for x in gathered(sequence, layer)) for layer in range(LAYERS)]
    drop(sequence, lambda layer: [kept] * HEADS)
    for layer, (keys, values) in enumerate(before):
        found = gathered(sequence, layer)
        assert torch.equal(found[0], keys)
        assert torch.equal(found[1], values)


def test_what_is_kept_and_placed_again_is_what_it_was(tmp_path: Path) -> None:
    pool = pool_of()
    segment = place(pool, range(13), entry_of(13))
    before = stored_of(segment)
    store = open_store(tmp_path, codec=Named("int8_pages", make("int8_pages")))
    key = store.key(range(13))
    store.put(key, gather(segment))
    segment.release()
    pool.positions[:] = EMPTY
    found = open_store(tmp_path, codec=Named("int8_pages", make("int8_pages"))).get(key)
    assert found is not None
    assert same(stored_of(place(pool, range(13), found)), before)


def test_an_engine_of_8_bits_shares_and_swaps_without_a_change(storyteller: PagedEngine) -> None:
    """A second request that begins alike, and one that was swapped out, write what one alone writes."""
    loaded, sampling = storyteller.loaded, Sampling(max_tokens=27, ignore_eos=True)
    prompt = [1, *([395, 317, 426, 338] * 9)]
    alone = PagedEngine(loaded, kv_bytes=8 << 20, kv_dtype=torch.int8, reuse=False)
    wanted = alone.start(prompt, sampling).finish().token_ids
    shared = PagedEngine(loaded, kv_bytes=8 << 20, kv_dtype=torch.int8)
    found = [shared.start(prompt, sampling).finish() for _ in range(2)]
    assert found[1].usage.reused_tokens >= len(prompt) - 1
    assert [one.token_ids for one in found] == [wanted, wanted]
    room = alone.scheduler.pages_for(64) * alone.pool.page_bytes
    few = PagedEngine(loaded, kv_bytes=room, kv_dtype=torch.int8, reuse=False, preemption="swap")
    stream = few.start(prompt, sampling)
    for _ in range(13):
        next(stream)
    few.start([1, 395, 317], Sampling(max_tokens=5), priority=-1).finish()
    assert few.scheduler.preempted == 1
    assert stream.finish().token_ids == wanted


def test_a_model_of_8_bits_writes_nearly_what_it_writes_in_32(storyteller: PagedEngine) -> None:
    eight = PagedEngine(storyteller.loaded, kv_bytes=8 << 20, kv_dtype=torch.int8, reuse=False)
    for prompt in ([1, *([395, 317, 426, 338] * 30)], [1, *([410, 395, 317, 426, 338, 401, 396] * 40)]):
        answer = storyteller.generate([prompt], max_tokens=60, ignore_eos=True)[0].token_ids
        exact, found = (along(engine, prompt, answer) for engine in (storyteller, eight))
        assert 0 < fidelity(exact, found).kl < 0.001
        assert agreement_where_sure(exact, found).all()


def test_passages_of_8_bits_come_back_from_the_disk_as_they_were(storyteller: PagedEngine, tmp_path: Path) -> None:
    """Whatever went from pages to the disk and came back in the meantime, and in another engine, answers are those of
    pages that never left."""
    loaded, pages = storyteller.loaded, storyteller.scheduler.pages_for(1) * 40
    wide = keeping.keeping(loaded, tmp_path / "none", host=0, disk=0, kv_dtype=torch.int8)
    few = pages * wide.pool.page_bytes
    choices = keeping.choices(3, 12)
    wanted = [keeping.answer(wide, chosen) for chosen in choices]
    for _ in range(2):
        engine = keeping.keeping(
            loaded, tmp_path / "kv", codec="int8_pages", host=20_000, kv_bytes=few, kv_dtype=torch.int8
        )
        assert [keeping.answer(engine, chosen) for chosen in choices] == wanted
        keeping.store_of(engine).close()
    assert keeping.store_of(engine).stats().disk.hits > 0


def test_who_asks_for_8_bits_gets_them(storyteller: PagedEngine, stories: Path, tmp_path: Path) -> None:
    engine = Engine.load(str(stories), device="cpu", dtype="float32", kv_dtype="int8", reuse="naive", cache=tmp_path)
    assert isinstance(engine, PagedEngine)
    assert engine.kv_bytes_of(100) < 0.4 * storyteller.kv_bytes_of(100)
    assert fingerprint_of(engine) != fingerprint_of(storyteller)
    parts = keeping.prompt(engine, [0, 1])
    used = engine.generate([parts], max_tokens=5)[0].usage
    pages = engine.pool.keys.nbytes // len(engine.pool)
    assert used.kv_bytes % engine.pool.page_bytes == 0 < used.kv_bytes
    assert engine.pool.page_bytes == 2 * pages + engine.pool.page_size * (2 * 2 + 4)
    assert engine.another().pool.keys.dtype == torch.int8
    keeping.store_of(engine).close()
    again = Engine.load(str(stories), device="cpu", dtype="float32", kv_dtype="int8", reuse="naive", cache=tmp_path)
    assert again.kept(parts) == [True, True]
    with pytest.raises(InputError, match="kv_dtype"):
        Engine.load(str(stories), kv_dtype="int3")


def test_a_codec_that_somebody_set_is_taken_also_for_pages_of_8_bits() -> None:
    assert codec_of(Settings(), torch.int8) == "int8_pages"
    assert codec_of(Settings(), torch.bfloat16) == "int8(group=64)"
    assert codec_of(Settings(codec="int8(group=64)"), torch.int8) == "int8(group=64)"


def test_formats_that_kernels_on_cuda_do_not_read_are_refused(storyteller: PagedEngine) -> None:
    loaded = replace(storyteller.loaded, device=torch.device("cuda"))
    with pytest.raises(UnsupportedError, match="set kv_dtype to auto or int8"):
        pool_for(storyteller.bridge.shapes, loaded, 1 << 20, None, torch.float16)
