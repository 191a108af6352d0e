"""Keys and values of 8 and of 4 bits: near what they were, and what was rounded once is not rounded again."""

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
from longreach.kv import int4, int8
from longreach.kv.codec import make
from longreach.kv.coding import CODINGS, channels_of, kept_as, name_of, numbers_of, parts_of, width_of
from longreach.kv.compact import drop, gathered
from longreach.kv.hadamard import block_of, signs, spread
from longreach.kv.pool import EMPTY, PagePool
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence
from longreach.kv.store.entry import Entry, Named
from longreach.kv.store.pages import gather, place
from longreach.kv.swap import swap_in, swap_out

LAYERS, HEADS, DIM, VALUE_DIM, SIZE = 2, 3, 8, 6, 4
ROWS = st.lists(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=6, max_size=6), min_size=1, max_size=5)
KEPT = pytest.mark.parametrize("kept", CODINGS, ids=name_of)
NEAR = {int8.CODES: (0.001, 1.0), int4.CODES: (0.05, 0.97)}
"""Of a small model's answers: KL at most, and the share of sure tokens that stay at least."""


def entry_of(tokens: int, seed: int = 0) -> Entry:
    made = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(LAYERS, HEADS, tokens, dim, generator=made) * 3 for dim in (DIM, VALUE_DIM))
    return Entry(keys, values, first=5)


def pool_of(kept: torch.dtype, pages: int = 200) -> PagePool:
    return PagePool(pages, SIZE, DIM, dtype=kept, value_dim=VALUE_DIM)


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
@given(ROWS)
def test_a_number_of_8_bits_is_off_by_no_more_than_documented(rows: list[list[float]]) -> None:
    x = torch.tensor(rows)
    found, _ = numbers_of(parts_of(x, x, int8.CODES))
    most = x.abs().amax(-1, keepdim=True).double() * int8.BOUND + int8.LEAST * int8.MOST
    assert bool(((found.double() - x.double()).abs() <= most).all())


@settings(deadline=None)
@given(ROWS)
def test_a_spread_number_of_4_bits_is_off_by_no_more_than_documented(rows: list[list[float]]) -> None:
    x = torch.tensor(rows)
    found, _ = numbers_of(parts_of(x, x, int4.CODES))
    most = spread(x).abs().amax(-1, keepdim=True).double() * int4.BOUND + int8.LEAST * 8
    assert bool(((spread(found) - spread(x)).double().abs() <= most).all())


@KEPT
@settings(deadline=None)
@given(rows=ROWS)
def test_what_was_rounded_once_is_not_rounded_again(kept: torch.dtype, rows: list[list[float]]) -> None:
    coding = CODINGS[kept]
    codes, scales = coding.code(torch.tensor(rows))
    again, others = coding.code(coding.numbers(codes, scales))
    assert torch.equal(codes, again)
    some = codes.any(-1).bool()
    assert torch.equal(scales[some], others[some])


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 64, 80, 96])
def test_channels_are_spread_evenly_and_back(channels: int) -> None:
    x = torch.randn(3, channels)
    torch.testing.assert_close(spread(spread(x)), x)
    torch.testing.assert_close(spread(x) @ spread(x).T, x @ x.T)
    square = signs(channels, torch.device("cpu"))
    assert torch.equal(square, square.T)
    assert torch.equal(square @ square, block_of(channels) * torch.eye(channels))


def test_one_great_channel_leaves_the_others_what_they_are() -> None:
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    x[:, 5] += 20
    found, _ = numbers_of(parts_of(x, x, int4.CODES))
    others = torch.arange(64) != 5
    codes = (x / (x.abs().amax(-1, keepdim=True) / 7)).round() * (x.abs().amax(-1, keepdim=True) / 7)
    assert (found - x)[:, others].std() < 0.6 * (codes - x)[:, others].std()


def test_names_are_those_of_what_is_stored() -> None:
    for name in ("float32", "bfloat16", "float16", "int8", "int4"):
        assert name_of(kept_as(name)) == name
    assert [channels_of(torch.empty(2, width_of(6, kept), dtype=kept)) for kept in (*CODINGS, torch.float16)] == [6] * 3
    with pytest.raises(UnsupportedError, match="choose int8"):
        width_of(7, int4.CODES)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@KEPT
def test_an_entry_that_is_not_finite_is_read_as_none(kept: torch.dtype, wrong: float) -> None:
    x = torch.tensor([[1.0, wrong], [2.0, 3.0]])
    found, _ = numbers_of(parts_of(x, x, kept))
    assert not found[0].isfinite().any()
    assert found[1].isfinite().all()


def test_pages_take_about_a_half_and_a_quarter_of_those_in_16_bits() -> None:
    sixteen, eight, four = (PagePool(8, 16, 64, dtype=kept_as(name)) for name in ("bfloat16", "int8", "int4"))
    for pool, bits in ((eight, 8), (four, 4)):
        assert pool.page_bytes == 16 * (64 * 2 * bits // 8 + 2 * 2 + 4)
        assert pool.page_bytes == sum(x[0].nbytes for x in (*pool.stored, pool.positions))
        assert (pool.head_dim, pool.value_dim, pool.bounds.shape[2]) == (64, 64, 64)
    assert eight.page_bytes < 0.53 * sixteen.page_bytes
    assert four.page_bytes < 0.28 * sixteen.page_bytes


@KEPT
def test_scrubbed_pages_are_numbers_again(kept: torch.dtype) -> None:
    pool = pool_of(kept, 4)
    pages = pool.take(1)
    pool.write(pool.index(pages), torch.full((1, SIZE, DIM), float("nan")), torch.ones(1, SIZE, VALUE_DIM))
    assert not pool.read(0)[0].isfinite().any()
    pool.scrub(pages)
    assert all(x.isfinite().all() for x in pool.read(0))


@KEPT
def test_a_swap_brings_back_every_bit(kept: torch.dtype) -> None:
    pool = pool_of(kept)
    sequence = sequence_of(pool, 11)
    before = stored_of(sequence.segments[0])
    swapped = swap_out(sequence)
    other = place(pool, range(15), entry_of(15, seed=1))
    swap_in(sequence, swapped)
    assert same(stored_of(sequence.segments[0]), before)
    other.release()
    sequence.release()
    assert pool.used == 0


@KEPT
def test_what_stays_after_a_drop_is_what_it_was(kept: torch.dtype) -> None:
    pool = pool_of(kept)
    sequence = sequence_of(pool, 14)
    some = torch.tensor([0, 3, 4, 9, 12, 13])
    before = [tuple(x[:, some] for x in gathered(sequence, layer)) for layer in range(LAYERS)]
    drop(sequence, lambda layer: [some] * HEADS)
    for layer, (keys, values) in enumerate(before):
        found = gathered(sequence, layer)
        assert torch.equal(found[0], keys)
        assert torch.equal(found[1], values)


@KEPT
def test_what_is_kept_and_placed_again_is_what_it_was(kept: torch.dtype, tmp_path: Path) -> None:
    pool = pool_of(kept)
    segment = place(pool, range(13), entry_of(13))
    before = stored_of(segment)
    codec = f"{name_of(kept)}_pages"
    store = open_store(tmp_path, codec=Named(codec, make(codec)))
    key = store.key(range(13))
    store.put(key, gather(segment))
    segment.release()
    pool.positions[:] = EMPTY
    found = open_store(tmp_path, codec=Named(codec, make(codec))).get(key)
    assert found is not None
    assert same(stored_of(place(pool, range(13), found)), before)


@KEPT
def test_an_engine_of_few_bits_shares_and_swaps_without_a_change(kept: torch.dtype, storyteller: PagedEngine) -> None:
    """A second request that begins alike, and one that was swapped out, write what one alone writes."""
    loaded, sampling = storyteller.loaded, Sampling(max_tokens=27, ignore_eos=True)
    prompt = [1, *([395, 317, 426, 338] * 9)]
    alone = PagedEngine(loaded, kv_bytes=8 << 20, kv_dtype=kept, reuse=False)
    wanted = alone.start(prompt, sampling).finish().token_ids
    shared = PagedEngine(loaded, kv_bytes=8 << 20, kv_dtype=kept)
    found = [shared.start(prompt, sampling).finish() for _ in range(2)]
    assert found[1].usage.reused_tokens >= len(prompt) - 1
    assert [one.token_ids for one in found] == [wanted, wanted]
    room = alone.scheduler.pages_for(64) * alone.pool.page_bytes
    few = PagedEngine(loaded, kv_bytes=room, kv_dtype=kept, reuse=False, preemption="swap")
    stream = few.start(prompt, sampling)
    for _ in range(13):
        next(stream)
    few.start([1, 395, 317], Sampling(max_tokens=5), priority=-1).finish()
    assert few.scheduler.preempted == 1
    assert stream.finish().token_ids == wanted


@KEPT
def test_a_model_of_few_bits_writes_nearly_what_it_writes_in_32(kept: torch.dtype, storyteller: PagedEngine) -> None:
    few, (kl, same) = PagedEngine(storyteller.loaded, kv_bytes=8 << 20, kv_dtype=kept, reuse=False), NEAR[kept]
    for prompt in ([1, *([395, 317, 426, 338] * 30)], [1, *([410, 395, 317, 426, 338, 401, 396] * 40)]):
        answer = storyteller.generate([prompt], max_tokens=60, ignore_eos=True)[0].token_ids
        exact, found = (along(engine, prompt, answer) for engine in (storyteller, few))
        assert 0 < fidelity(exact, found).kl < kl
        assert agreement_where_sure(exact, found).mean() >= same


@KEPT
def test_passages_of_few_bits_come_back_from_the_disk_as_they_were(
    kept: torch.dtype, storyteller: PagedEngine, tmp_path: Path
) -> None:
    """Whatever went from pages to the disk and came back in the meantime, and in another engine, answers are those of
    pages that never left."""
    loaded, pages = storyteller.loaded, storyteller.scheduler.pages_for(1) * 40
    wide = keeping.keeping(loaded, tmp_path / "none", host=0, disk=0, kv_dtype=kept)
    few = pages * wide.pool.page_bytes
    choices = keeping.choices(3, 12)
    wanted = [keeping.answer(wide, chosen) for chosen in choices]
    for _ in range(2):
        engine = keeping.keeping(
            loaded, tmp_path / "kv", codec=f"{name_of(kept)}_pages", host=20_000, kv_bytes=few, kv_dtype=kept
        )
        assert [keeping.answer(engine, chosen) for chosen in choices] == wanted
        keeping.store_of(engine).close()
    assert keeping.store_of(engine).stats().disk.hits > 0


@KEPT
def test_who_asks_for_few_bits_gets_them(
    kept: torch.dtype, storyteller: PagedEngine, stories: Path, tmp_path: Path
) -> None:
    asked = {"device": "cpu", "dtype": "float32", "kv_dtype": name_of(kept), "reuse": "naive", "cache": tmp_path}
    engine = Engine.load(str(stories), **asked)
    assert isinstance(engine, PagedEngine)
    assert engine.kv_bytes_of(100) < 0.4 * storyteller.kv_bytes_of(100)
    assert fingerprint_of(engine) != fingerprint_of(storyteller)
    parts = keeping.prompt(engine, [0, 1])
    used = engine.generate([parts], max_tokens=5)[0].usage
    pages = engine.pool.keys.nbytes // len(engine.pool)
    assert used.kv_bytes % engine.pool.page_bytes == 0 < used.kv_bytes
    assert engine.pool.page_bytes == 2 * pages + engine.pool.page_size * (2 * 2 + 4)
    assert engine.another().pool.keys.dtype == kept
    keeping.store_of(engine).close()
    again = Engine.load(str(stories), **asked)
    assert again.kept(parts) == [True, True]


def test_what_nobody_keeps_numbers_in_is_refused(stories: Path) -> None:
    with pytest.raises(InputError, match="kv_dtype"):
        Engine.load(str(stories), kv_dtype="int3")


@KEPT
def test_a_codec_that_somebody_set_is_taken_also_for_pages_of_few_bits(kept: torch.dtype) -> None:
    assert codec_of(Settings(), kept) == f"{name_of(kept)}_pages"
    assert codec_of(Settings(), torch.bfloat16) == "int8(group=64)"
    assert codec_of(Settings(codec="int8(group=64)"), kept) == "int8(group=64)"


def test_formats_that_kernels_on_cuda_do_not_read_are_refused(storyteller: PagedEngine) -> None:
    loaded = replace(storyteller.loaded, device=torch.device("cuda"))
    with pytest.raises(UnsupportedError, match="set kv_dtype to auto, int8 or int4"):
        pool_for(storyteller.bridge.shapes, loaded, 1 << 20, None, torch.float16)
