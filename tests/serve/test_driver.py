"""The thread that computes for everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from longreach.engine import ROOT, Completion, Sampling
from longreach.engine.paged import PagedEngine
from longreach.errors import EndedError, InputError
from longreach.serve.driver import Driver, Threads
from longreach.serve.errand import Errand, ErrandEngine
from serving import Scripted

STORY = "Once upon a time, there was a little"
Made = Callable[..., PagedEngine]


@pytest.fixture
def engine(tiny: Made) -> PagedEngine:
    return tiny()


@pytest.fixture
def driver(engine: PagedEngine) -> Any:
    made = Driver(engine)
    yield made
    made.close()


def test_a_stream_through_the_driver_is_that_of_the_engine(engine: PagedEngine, driver: Driver, tiny: Made) -> None:
    view = ErrandEngine(engine, driver, Errand("t", 60))
    exact = tiny().generate([STORY], max_tokens=10)[0]
    stream = view.stream(STORY, max_tokens=10)
    assert "".join(piece.text for piece in stream) == exact.text
    assert stream.completion.token_ids == exact.token_ids


def test_an_exploration_through_the_driver_is_that_of_the_engine(
    engine: PagedEngine, driver: Driver, tiny: Made
) -> None:
    exact, found = tiny().explore(STORY), ErrandEngine(engine, driver, Errand("t", 60)).explore(STORY)
    assert torch.allclose(exact.root, found.root, atol=1e-4)
    nodes = [(ROOT, 5), (ROOT, 9), (0, 7)]
    assert torch.allclose(exact.expand(nodes)[1], found.expand(nodes)[1], atol=1e-4)


def test_all_is_computed_in_one_thread(engine: PagedEngine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    step = engine.step

    def watched() -> bool:
        seen.add(threading.current_thread().name)
        return step()

    monkeypatch.setattr(engine, "step", watched)
    views = [ErrandEngine(engine, driver, Errand("t", 60)) for _ in range(4)]
    threads = [threading.Thread(target=lambda v=view: v.stream(STORY, max_tokens=6).finish()) for view in views]
    for thread in threads:
        thread.start()
    views[0].explore(STORY)
    for thread in threads:
        thread.join()
    assert seen == {"longreach-engine"}


def test_an_errand_that_is_cancelled_frees_everything(engine: PagedEngine, driver: Driver) -> None:
    errand = Errand("t", 60)
    view = ErrandEngine(engine, driver, errand)
    stream = view.stream(STORY, max_tokens=400, ignore_eos=True)
    next(stream)
    found = view.explore(STORY)
    errand.cancel()
    with pytest.raises(EndedError):
        stream.finish()
    with pytest.raises(EndedError):
        found.expand([(ROOT, 5)])
    with pytest.raises(EndedError):
        view.explore(STORY)
    del found
    driver.call(engine.step).result()
    driver.call(engine.forget).result()
    assert engine.pool.used == 0


def test_an_errand_out_of_time_is_told_so(engine: PagedEngine, driver: Driver) -> None:
    with pytest.raises(EndedError):
        ErrandEngine(engine, driver, Errand("t", 0.0)).stream(STORY, max_tokens=4).finish()
    with pytest.raises(EndedError):
        ErrandEngine(engine, driver, Errand("t", 0.0)).explore(STORY)


def test_what_is_wrong_with_a_prompt_is_told_to_its_caller_alone(engine: PagedEngine, driver: Driver) -> None:
    view = ErrandEngine(engine, driver, Errand("t", 60))
    stream = view.stream(STORY, max_tokens=20)
    with pytest.raises(InputError):
        view.stream([10**6], max_tokens=4).finish()
    with pytest.raises(InputError):
        view.explore([10**6])
    assert stream.finish().usage.generated_tokens == 20


def test_a_step_that_fails_fails_its_requests_and_the_next_goes_on(
    engine: PagedEngine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = ErrandEngine(engine, driver, Errand("t", 60))
    with monkeypatch.context() as patch:
        patch.setattr(engine.scheduler, "schedule", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            view.stream(STORY, max_tokens=4).finish()
    assert view.stream(STORY, max_tokens=4).finish().usage.generated_tokens == 4


def test_a_driver_that_is_closed_leaves_nobody_waiting(tiny: Made) -> None:
    engine = tiny()
    driver = Driver(engine)
    view = ErrandEngine(engine, driver, Errand("t", 60))
    stream = view.stream(STORY, max_tokens=400, ignore_eos=True)
    next(stream)
    driver.close()
    with pytest.raises(EndedError):
        stream.finish()
    with pytest.raises(EndedError):
        view.stream(STORY, max_tokens=4).finish()
    with pytest.raises(EndedError):
        driver.call(lambda: None).result(10)


def test_an_engine_elsewhere_is_waited_for_in_threads() -> None:
    engine = Scripted("one two three")
    told: list[Any] = []
    done = threading.Event()

    def deliver(item: Any) -> None:
        told.append(item)
        if isinstance(item, Completion | Exception):
            done.set()

    Threads(engine).stream(lambda: engine.start(STORY, Sampling()), deliver)
    assert done.wait(20)
    assert "".join(item.text for item in told[:-1]).split() == ["one", "two", "three"]
    assert told[-1].text == "one two three"
