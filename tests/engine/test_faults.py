"""What goes wrong for one request is nobody else's business, and every page comes back."""

from __future__ import annotations

import random
from typing import Any, Literal

import pytest
import torch

from longreach.engine.engine import Stream
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Sampling
from longreach.errors import InputError, ModelError, PromptTooLongError

PROMPTS = [[1, *[395 + at, 317, 426 + at, 338] * (2 + 3 * at)] for at in range(6)]


def small(engine: PagedEngine, tokens: int, **options: Any) -> PagedEngine:
    """An engine whose pool holds about `tokens` tokens."""
    pages = engine.scheduler.pages_for(tokens)
    return PagedEngine(engine.loaded, kv_bytes=pages * engine.pool.page_bytes, **options)


def plain(engine: PagedEngine, n: int = 40) -> list[tuple[int, ...]]:
    return [tuple(engine.generate([prompt], max_tokens=n)[0].token_ids) for prompt in PROMPTS]


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("reuse", [True, False])
def test_when_pages_run_out_nobody_is_lost_and_no_answer_changes(
    storyteller: PagedEngine, preemption: Literal["recompute", "swap"], reuse: bool
) -> None:
    want = plain(storyteller)
    engine = small(storyteller, 176, preemption=preemption, reuse=reuse, step_tokens=64)
    streams = [engine.start(prompt, Sampling(max_tokens=40)) for prompt in PROMPTS]
    assert [stream.finish().token_ids for stream in streams] == want
    assert engine.scheduler.preempted > 0
    if engine.scheduler.prefix is not None:
        engine.scheduler.prefix.clear()
    assert engine.pool.used == 0


def test_a_client_that_goes_away_gives_its_pages_back_at_once(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 400, reuse=False)
    stream, other = (engine.start(prompt, Sampling(max_tokens=100)) for prompt in PROMPTS[:2])
    next(stream)
    before = engine.pool.used
    stream.cancel()
    assert 0 < engine.pool.used < before
    assert len(other.finish().token_ids) == 100
    assert engine.pool.used == 0


def test_what_can_never_fit_is_refused_at_submission(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 64)
    with pytest.raises(PromptTooLongError, match="holds 64"):
        engine.stream([5] * 40, max_tokens=100)
    assert len(engine.generate([[5] * 40], max_tokens=20)[0].token_ids) == 20
    with pytest.raises(InputError, match="kv_bytes=100"):
        PagedEngine(storyteller.loaded, kv_bytes=100)


def test_what_just_fits_fits_whatever_was_read_before(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 64)
    ids = [1, *([395, 317, 426, 338] * 9)]
    engine.generate([ids[:18]], max_tokens=3)
    assert len(engine.generate([ids], max_tokens=64 - len(ids), ignore_eos=True)[0].token_ids) == 64 - len(ids)


def test_what_just_fits_comes_back_from_host_memory(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 64, preemption="swap", reuse=False)
    stream = engine.start([1, *([395, 317, 426, 338] * 9)], Sampling(max_tokens=27, ignore_eos=True))
    next(stream)
    for _ in range(13):
        next(stream)
    urgent = engine.start(PROMPTS[0], Sampling(max_tokens=5), priority=-1)
    assert len(urgent.finish().token_ids) == 5
    assert engine.scheduler.preempted == 1
    assert len(stream.finish().token_ids) == 27


def test_logits_that_are_no_numbers_fail_one_request_and_no_other(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 400)
    want = tuple(engine.generate([PROMPTS[0]], max_tokens=20)[0].token_ids)
    run = engine.bridge.run

    def broken(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        logits = run(tokens, *rest)
        return torch.where((tokens == 500).any(), torch.cat([logits[:-1], logits[-1:] * torch.nan]), logits)

    engine.bridge.run = broken  # type: ignore[method-assign]
    good, bad = engine.start(PROMPTS[0], Sampling(max_tokens=20)), engine.start([1, 400, 500], Sampling())
    with pytest.raises(ModelError, match="not numbers"):
        bad.finish()
    assert tuple(good.finish().token_ids) == want
    assert bool(engine.pool.keys.isfinite().all())


def test_an_error_of_the_network_fails_who_was_in_the_step(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 400, reuse=False)
    run, stream = engine.bridge.run, engine.start(PROMPTS[0], Sampling())

    def broken(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("no")

    engine.bridge.run = broken  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="no memory left on cpu"):
        stream.finish()
    assert engine.pool.used == 0
    engine.bridge.run = run  # type: ignore[method-assign]
    assert len(engine.generate([PROMPTS[0]], max_tokens=5)[0].token_ids) == 5


def test_whoever_is_more_urgent_goes_first(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 200, reuse=False)
    slow = [engine.start(prompt, Sampling(max_tokens=60), priority=5) for prompt in PROMPTS[2:5]]
    next(slow[0])
    urgent = engine.start(PROMPTS[5], Sampling(max_tokens=5), priority=0)
    urgent.finish()
    assert any(len(job.output) < 60 for job in [*engine.scheduler.running, *engine.scheduler.waiting])
    assert [len(stream.finish().token_ids) for stream in slow] == [60, 60, 60]


def test_after_its_time_an_answer_ends_where_it_is(storyteller: PagedEngine) -> None:
    engine = small(storyteller, 400)
    done = engine.start(PROMPTS[0], Sampling(max_tokens=100), timeout=0.0).finish()
    assert done.finish_reason == "cancelled"
    assert len(done.token_ids) < 100


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(4))
def test_random_schedules_lose_no_page_and_change_no_answer(storyteller: PagedEngine, seed: int) -> None:
    """A thousand schedules in all: submit, cancel, drop, step and preempt in random order."""
    want = plain(storyteller, 12)
    engine = small(storyteller, 200, step_tokens=48, preemption="swap" if seed % 2 else "recompute")
    rolls = random.Random(seed)
    for _ in range(250):
        live: list[tuple[int, Stream]] = []
        for _ in range(rolls.randint(1, 8)):
            action = rolls.random()
            if action < 0.5:
                which = rolls.randrange(len(PROMPTS))
                policy = "snapkv(budget=0.5)" if rolls.random() < 0.1 else None
                stream = engine.start(
                    PROMPTS[which], Sampling(max_tokens=12), priority=rolls.randint(0, 2), policy=policy
                )
                live.append((-1 if policy else which, stream))
            elif action < 0.6 and live:
                live.pop(rolls.randrange(len(live)))[1].cancel()
            elif action < 0.65 and live:
                del live[rolls.randrange(len(live))]
            elif action < 0.75 and engine.scheduler.running:
                engine.scheduler.preempt(rolls.choice(engine.scheduler.running))
            else:
                engine.step()
        if rolls.random() < 0.3:
            for which, stream in live:
                done = stream.finish()
                assert which < 0 or tuple(done.token_ids) == want[which]
        live.clear()
        engine.step()
        engine.pool.check()
    while engine.step():
        pass
    assert not engine.scheduler.running
    assert not engine.scheduler.waiting
    assert engine.scheduler.prefix is not None
    engine.scheduler.prefix.clear()
    assert engine.pool.used == 0
