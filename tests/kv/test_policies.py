"""Every policy: exact at a budget of everything; smaller in bytes below; harmless to others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attention.steps import tokens
from families import exact
from kv.tiny import engine_of
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Sampling
from longreach.errors import SpecError
from longreach.kv import int4
from longreach.kv.policies import LayerView, Policy, policies
from longreach.kv.sequence import Sequence

EVERYTHING = {
    "snapkv": ["snapkv(budget=1.0)", "snapkv(budget=100000)", "snapkv(budget=1.0, heads='adaptive')"],
    "streaming_heads": ["streaming_heads(window=100000, every=3)", "streaming_heads(window=1, retrieval=ALL)"],
    "page_select": ["page_select(budget=100000)"],
}
QUARTER = {
    "snapkv": ["snapkv(budget=0.25)", "snapkv(budget=0.25, smooth='max')", "snapkv(budget=0.25, heads='adaptive')"],
    "streaming_heads": ["streaming_heads(window=90, sinks=4, every=16)"],
}
ALL = str(tuple((layer, head) for layer in range(5) for head in range(4)))
PROMPT = [1, *([410, 395, 317, 426, 338, 401, 396] * 70)][:448]


@pytest.fixture(scope="module", params=[None, torch.int8, torch.uint8], ids=["", "8 bits", "4 bits"])
def engine(storyteller: PagedEngine, request: pytest.FixtureRequest) -> PagedEngine:
    return PagedEngine(storyteller.loaded, kv_bytes=16 << 20, step_tokens=150, kv_dtype=request.param)


def policy_of(spec: str, asked: bool) -> Policy:
    """A policy; `asked` also where it keeps all."""
    policy = policies.make(spec.replace("ALL", ALL))
    if asked:
        policy.keeps_all = lambda prompt, tokens: False  # type: ignore[method-assign]
    return policy


def windowed() -> PagedEngine:
    """An engine of a model of which some layers have a window."""
    return engine_of("gemma3", reuse=True)


def sequence_pages(sequence: Sequence | None) -> Any:
    """How many pages each layer and KV head has, without those taken ahead for the answer."""
    assert sequence is not None
    size = sequence.pool.page_size
    return sum(
        ((segment.table >= 0) & (np.arange(segment.table.shape[2]) < -(-segment.entries[..., None] // size))).sum(2)
        for segment in sequence.segments
    )


def write(engine: PagedEngine, policy: str | Policy | None, prompt: list[int] = PROMPT, n: int = 40) -> tuple[int, ...]:
    return tuple(engine.start(prompt, Sampling(max_tokens=n), policy=policy).finish().token_ids)


def test_every_policy_is_in_the_matrix() -> None:
    assert set(policies.names()) == set(EVERYTHING)


@pytest.mark.parametrize("asked", [False, True], ids=["", "asked all the same"])
@pytest.mark.parametrize("spec", [spec for specs in EVERYTHING.values() for spec in specs])
def test_a_budget_of_everything_is_exact_attention(engine: PagedEngine, spec: str, asked: bool) -> None:
    if asked and spec.startswith("snapkv") and engine.pool.keys.dtype == int4.CODES:
        pytest.skip("the prompt's end is computed apart, which gives other codes: see the next test")
    assert write(engine, policy_of(spec, asked)) == write(engine, None)


@pytest.mark.parametrize("spec", [specs[0] for specs in EVERYTHING.values()])
def test_a_budget_of_everything_changes_no_bit_of_what_is_computed(engine: PagedEngine, spec: str) -> None:
    """A policy that observes the prompt's end has it computed in other portions, which are rounded otherwise."""
    engine.forget()
    engine.start(PROMPT[:-20], Sampling(max_tokens=1)).finish()
    sampling = Sampling(max_tokens=20, logprobs=5)
    found = [engine.start(PROMPT, sampling, policy=policy).finish() for policy in (Policy(), spec)]
    assert found[0].usage == found[1].usage
    assert found[0].logprobs == found[1].logprobs


@pytest.mark.parametrize("spec", [spec for specs in EVERYTHING.values() for spec in specs])
def test_layers_with_a_window_see_it_whatever_the_policy(spec: str) -> None:
    ids = tokens(70, 2).tolist()
    out = exact("gemma3")(torch.tensor([ids])).logits[0, -1].argmax()
    engine = windowed()
    found = write(engine, policy_of(spec, asked=True), ids, 30)
    assert found[0] == int(out)
    assert found == write(engine, None, ids, 30)


@pytest.mark.parametrize("spec", [spec for specs in QUARTER.values() for spec in specs] + ["page_select(budget=16)"])
def test_layers_with_a_window_hold_it_whatever_the_policy(spec: str) -> None:
    engine = windowed()
    plain = engine.start(tokens(150, 2).tolist(), Sampling(max_tokens=30))
    next(plain)
    stream = engine.start(tokens(150, 2).tolist(), Sampling(max_tokens=30), policy=spec)
    next(stream)
    held = [sequence_pages(job.sequence) for job in engine.scheduler.running]
    windows = engine.bridge.shapes.windows
    for layer, window in enumerate(windows):
        if window is not None:
            assert (held[1][layer] > 0).all()
            assert (held[1][layer] <= held[0][layer] + 1).all()  # what was read apart has a begun page of its own
        elif not spec.startswith("page_select"):
            assert (held[1][layer] < held[0][layer]).all()
    assert len(stream.finish().token_ids) == 30
    plain.cancel()
    engine.forget()
    assert engine.pool.used == 0
    engine.pool.check()


@pytest.mark.parametrize("spec", [spec for specs in QUARTER.values() for spec in specs])
def test_a_quarter_of_the_budget_holds_a_quarter_of_the_bytes(storyteller: PagedEngine, spec: str) -> None:
    engine = PagedEngine(storyteller.loaded, kv_bytes=16 << 20, reuse=False)
    stream = engine.start(PROMPT, Sampling(max_tokens=50), policy=spec)
    exact = engine.scheduler.pages_for(len(PROMPT)) * engine.pool.page_bytes
    next(stream)
    assert 0 < engine.pool.used_bytes <= 0.27 * exact
    assert len(stream.finish().token_ids) == 50
    assert engine.pool.used == 0


@pytest.mark.parametrize("spec", [spec for specs in QUARTER.values() for spec in specs])
def test_what_is_freed_admits_others(storyteller: PagedEngine, spec: str) -> None:
    one = storyteller.scheduler.pages_for(len(PROMPT) + 30)
    engine = PagedEngine(storyteller.loaded, kv_bytes=int(1.6 * one) * storyteller.pool.page_bytes, reuse=False)
    streams = [engine.start(PROMPT, Sampling(max_tokens=30), policy=spec) for _ in range(3)]
    next(streams[0])
    for _ in range(6):
        engine.step()
    assert len(engine.scheduler.running) == 3
    assert engine.scheduler.preempted == 0
    plain = PagedEngine(storyteller.loaded, kv_bytes=int(1.6 * one) * storyteller.pool.page_bytes, reuse=False)
    streams = [plain.start(PROMPT, Sampling(max_tokens=30)) for _ in range(3)]
    next(streams[0])
    plain.step()
    assert len(plain.scheduler.running) == 1


def test_a_policy_changes_nothing_for_others(engine: PagedEngine) -> None:
    alone = write(engine, None)
    small = engine.start(PROMPT, Sampling(max_tokens=40), policy="snapkv(budget=20, window=4)")
    exact = engine.start(PROMPT, Sampling(max_tokens=40))
    small.finish()
    assert tuple(exact.finish().token_ids) == alone
    assert write(engine, None) == alone


def test_snapkv_keeps_what_the_window_looks_at() -> None:
    keys = torch.zeros(1, 40, 4)
    keys[0, 11] = torch.tensor([9.0, 0, 0, 0])
    queries = torch.tensor([1.0, 0, 0, 0]).expand(3, 2, 4)
    policy: Any = policies.make("snapkv(budget=4, window=3, kernel=1)")
    kept = policy.keep(LayerView(0, keys, keys, queries, 1.0))
    assert [head.tolist() for head in kept] == [[11, 37, 38, 39]]


def test_page_select_reads_the_pages_with_the_greatest_bounds() -> None:
    low, high = torch.zeros(1, 5, 2), torch.zeros(1, 5, 2)
    high[0, 3, 0], low[0, 1, 1] = 5.0, -4.0
    policy: Any = policies.make("page_select(budget=32)")
    assert policy.select(torch.tensor([[1.0, -1.0]]), low, high, 16).tolist() == [[1, 3]]


@pytest.mark.parametrize(
    "spec",
    [
        "snapkv(budget=0)",
        "snapkv(kernel=2)",
        "snapkv(smooth='median')",
        "streaming_heads(window=0)",
        "page_select(budget=-1)",
    ],
)
def test_budgets_that_are_none_are_refused(engine: PagedEngine, spec: str) -> None:
    with pytest.raises(SpecError):
        engine.start(PROMPT, Sampling(), policy=spec)


def test_an_unknown_policy_is_refused_by_name(engine: PagedEngine) -> None:
    with pytest.raises(SpecError, match="no policy is called 'nonsense'; known: page_select, snapkv"):
        engine.start(PROMPT, Sampling(), policy="nonsense")
