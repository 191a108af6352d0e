"""What is decoded into pages at once is what is decoded first and copied then, to the bit, and nothing beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.kv.codec import make
from longreach.kv.pool import PagePool
from longreach.kv.segment import Segment
from longreach.kv.store.pages import bring, gather, lay_out

MARK = 7.0


def segment_in(pool: PagePool, streams: tuple[int, int], tokens: int, seed: int) -> Segment:
    """A segment whose pages lie anywhere."""
    layers, heads = streams
    segment = lay_out(pool, streams, range(tokens), first=3)
    chance = np.random.default_rng(seed)
    segment.renumber(chance.permutation(segment.table.reshape(-1)).reshape(segment.table.shape))
    columns = segment.table.shape[2]
    row = torch.full((columns * pool.page_size,), 2**31 - 1, dtype=torch.int32)
    row[:tokens] = torch.arange(3, 3 + tokens)
    pool.positions[pool.index(segment.table.reshape(-1))] = row.view(columns, -1).repeat(layers * heads, 1)
    return segment


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 70),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(2, 80),
    st.integers(1, 17),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**16),
)
def test_pages_hold_what_is_decoded(
    streams: tuple[int, int],
    tokens: int,
    dims: tuple[int, int],
    group: int,
    size: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    chance = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(*streams, tokens, dim, generator=chance).to(dtype) for dim in dims)
    opened = make(f"int8(group={group})").open(make(f"int8(group={group})").encode(keys, values, 3))
    pages = streams[0] * streams[1] * -(-tokens // size)
    pool = PagePool(2 * pages, size, dims[0], dtype=dtype, value_dim=dims[1])
    pool.keys.fill_(MARK)
    pool.values.fill_(MARK)
    segment = segment_in(pool, streams, tokens, seed)
    assert opened.straight is not None
    half = streams[0] // 2
    for low, end in ((half, streams[0]), (0, half)):
        if low < end:
            assert opened.straight(low, end, pool.stored, segment.table[low:end])
    found, (wanted_keys, wanted_values) = gather(segment), opened.whole()
    assert torch.equal(found.keys, wanted_keys)
    assert torch.equal(found.values, wanted_values)
    others = torch.ones(len(pool), dtype=torch.bool)
    others[pool.index(segment.pages)] = False
    assert bool((pool.keys[others] == MARK).all())
    assert bool((pool.values[others] == MARK).all())


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_pages_of_few_bits_hold_what_was_written_of_such(name: str) -> None:
    kept = {"int8": torch.int8, "int4": torch.uint8}[name]
    chance = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(3, 2, 9, dim, generator=chance) for dim in (8, 6))
    codec = make(f"{name}_pages")
    opened = codec.open(codec.encode(keys, values))
    straight, copied = (segment_in(PagePool(24, 4, 8, dtype=kept, value_dim=6), (3, 2), 9, 0) for _ in range(2))
    assert opened.straight is not None
    for low, end in ((1, 3), (0, 1)):
        assert opened.straight(low, end, straight.pool.stored, straight.table[low:end])
        bring(copied, opened.of(*opened.whole()), low, end)
    one, two = gather(straight), gather(copied)
    assert torch.equal(one.keys, two.keys)
    assert torch.equal(one.values, two.values)


@pytest.mark.parametrize(
    ("spec", "encoded", "kept", "scale"),
    [
        ("int4(group=4)", torch.float32, torch.float32, 1.0),
        ("int8(group=4)", torch.float32, torch.bfloat16, 1.0),
        ("int8(group=4)", torch.float16, torch.float16, 1.0),
        ("int8(group=4)", torch.float32, torch.int8, 1.0),
        ("int8(group=4)", torch.float32, torch.float32, 1e30),
        ("int8_pages", torch.bfloat16, torch.int8, 1.0),
        ("int8_pages", torch.float32, torch.uint8, 1.0),
        ("raw", torch.float32, torch.float32, 1.0),
    ],
)
def test_what_cannot_be_is_decoded_first(spec: str, encoded: torch.dtype, kept: torch.dtype, scale: float) -> None:
    chance = torch.Generator().manual_seed(0)
    keys, values = (scale * torch.randn(2, 2, 9, 8, generator=chance).to(encoded) for _ in range(2))
    opened = make(spec).open(make(spec).encode(keys, values))
    pool = PagePool(20, 4, 8, dtype=kept)
    segment = segment_in(pool, (2, 2), 9, 0)
    stored = [x.clone() for x in pool.stored]
    if opened.straight is not None:
        assert not opened.straight(0, 2, pool.stored, segment.table)
        assert all(torch.equal(before, after) for before, after in zip(stored, pool.stored, strict=True))
    bring(segment, opened, 0, 2)
    twin = segment_in(PagePool(20, 4, 8, dtype=kept), (2, 2), 9, 0)
    bring(twin, opened.of(*opened.whole()), 0, 2)
    one, two = gather(segment), gather(twin)
    assert torch.equal(one.keys, two.keys)
    assert torch.equal(one.values, two.values)
