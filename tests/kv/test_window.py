"""Layers with a window hold no more than the window; nobody sees a difference."""

from __future__ import annotations

import pytest
import torch

from attention.steps import TOLERANCE, bridge_of, pool_of, read, sequence_of, tokens
from families import exact
from kv.tiny import SIZE, engine_of
from longreach.attention.numba_step import NumbaStep
from longreach.attention.plain_step import PlainStep
from longreach.attention.step import Step
from longreach.attention.strided_step import StridedStep
from longreach.engine.requests import Sampling
from longreach.kv.sequence import Sequence
from longreach.kv.swap import swap_in, swap_out
from longreach.kv.window import leave

WINDOWED = ["mistral", "gemma2", "gemma3"]
WINDOW = 12


def pages_of(sequence: Sequence, layer: int) -> int:
    """Pages with tokens in them that each KV head of a layer has."""
    held = [(segment.table[layer, :, : -(-len(segment) // SIZE)] >= 0).sum(1) for segment in sequence.segments]
    counts = set(sum(held).tolist())  # type: ignore[arg-type]
    assert len(counts) == 1
    return int(counts.pop())


@pytest.mark.parametrize("kind", [PlainStep, StridedStep, NumbaStep])
@pytest.mark.parametrize("cuts", [[1] * 90, [50, 1, 1, 1, 30, 7], [16] * 5 + [10]])
@pytest.mark.parametrize("family", WINDOWED)
def test_windowed_layers_hold_window_and_page_and_logits_stay(family: str, cuts: list[int], kind: type[Step]) -> None:
    bridge, ids = bridge_of(family), tokens(90, 1)
    with torch.inference_mode():
        wanted = exact(family)(ids[None]).logits[0]
    sequence, found = sequence_of(bridge, pool_of(bridge)), []
    for part in ids.split(cuts):
        found += read(bridge, kind, [(sequence, part)])
        leave(sequence, bridge.shapes.windows)
        for layer, window in enumerate(bridge.shapes.windows):
            whole = -(-sequence.position // SIZE)
            assert window in (None, WINDOW)
            assert pages_of(sequence, layer) <= (whole if window is None else -(-(WINDOW + SIZE) // SIZE))
            assert window is not None or pages_of(sequence, layer) == whole
        assert sequence.pool.used == sequence.pages
    assert (torch.cat(found) - wanted).abs().max() < TOLERANCE
    sequence.release()
    assert sequence.pool.used == 0
    sequence.pool.check()


@pytest.mark.parametrize("family", WINDOWED)
def test_a_shared_beginning_is_let_go_of_by_each_alone(family: str) -> None:
    """Moved segments that lie wholly before the window go to their last page; a copy in host memory comes back."""
    bridge, ids = bridge_of(family), tokens(90, 1)
    pool = pool_of(bridge)
    first, second = (sequence_of(bridge, pool) for _ in range(2))
    read(bridge, StridedStep, [(first, ids[:41])])
    for segment in first.share(41):
        second.add(segment)
    with torch.inference_mode():
        wanted = exact(family)(ids[None]).logits[0]
    read(bridge, StridedStep, [(second, ids[41:80])])
    assert leave(second, bridge.shapes.windows) > 0
    windowed = [layer for layer, window in enumerate(bridge.shapes.windows) if window is not None]
    assert (second.segments[0].table[windowed] < 0).all()
    assert not second.segments[0].complete
    assert first.segments[0].complete
    swap_in(second, swap_out(second))
    found = read(bridge, StridedStep, [(second, ids[80:]), (first, ids[41:])])
    assert (found[0] - wanted[80:]).abs().max() < TOLERANCE
    assert (found[1] - wanted[41:]).abs().max() < TOLERANCE


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("family", WINDOWED)
def test_an_engine_frees_what_left_the_window_and_writes_the_same(family: str, reuse: bool) -> None:
    engine = engine_of(family, reuse)
    ids = tokens(70, 2)
    out = exact(family).generate(ids[None], max_new_tokens=60, do_sample=False, attention_mask=torch.ones(1, 70))
    wanted = out[0, 70:].tolist()
    stream = engine.start(ids.tolist(), Sampling(max_tokens=60))
    written = []
    for piece in stream:
        written.append(piece.token_id)
        for job in engine.scheduler.running:
            assert job.sequence is not None
            windows = engine.bridge.shapes.windows
            most = [pages_of(job.sequence, layer) for layer, window in enumerate(windows) if window is not None]
            assert max(most) <= 2
    assert written == wanted
    again = engine.generate([ids.tolist()], max_tokens=60)[0]
    assert list(again.token_ids) == wanted
    assert again.usage.reused_tokens == (69 if reuse else 0)
    several = engine.generate([ids.tolist()], max_tokens=60, n=3)[0]
    assert [list(sample.token_ids) for sample in several.samples] == [wanted] * 3
    if engine.scheduler.prefix is not None:
        engine.scheduler.prefix.clear()
    assert engine.pool.used == 0
    engine.pool.check()


def test_what_leaves_the_window_is_bytes_of_the_pool() -> None:
    engine = engine_of("mistral", reuse=False)
    stream = engine.start(tokens(70, 3).tolist(), Sampling(max_tokens=30))
    next(stream)
    sequence = engine.scheduler.running[0].sequence
    assert sequence is not None
    streams = engine.bridge.shapes.layers * engine.bridge.shapes.kv_heads
    room = sequence.room // SIZE
    assert engine.pool.used_bytes <= streams * (2 + room) * engine.pool.page_bytes
    assert engine.pool.used_bytes < engine.scheduler.pages_for(70) * engine.pool.page_bytes
    stream.cancel()
    assert engine.pool.used_bytes == 0
