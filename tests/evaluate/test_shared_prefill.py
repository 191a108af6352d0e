"""One prefill serves every policy, and no answer depends on who else was asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from longreach.evaluate.shared_prefill import SharedPrefill
from longreach.evaluate.tasks import Example
from longreach.tokens import Tokenizer

POLICIES = ("full", "snapkv(budget=1.0)", "snapkv(budget=0.25)", "streaming_heads(window=64)", "page_select(budget=64)")
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def engine(stories: Path):
    from longreach.engine import Engine

    return Engine.load(str(stories), device="cpu", dtype="float32")


@pytest.fixture(params=["multi_request", "multi_turn"])
def example(request, make, stories: Path) -> Example:
    counter = Tokenizer.from_file(stories / "tokenizer.json")
    task = make("niah_multikey", counter, length=300, n=1, keys=2, questions=2, mode=request.param)
    (one,) = task.examples()
    return replace(one, questions=tuple(replace(question, max_tokens=8) for question in one.questions))


def told(source: SharedPrefill, example: Example, policies) -> dict[str, list[tuple[str, int]]]:
    points = [{"policy": policy} for policy in policies]
    answers = list(source.respond(example, points))
    return {
        policy: [(response.text, response.cost.kv_bytes) for response in responses]
        for policy, responses in zip(policies, answers, strict=True)
    }


def test_answers_are_the_same_alone_together_and_in_any_order(engine, example: Example) -> None:
    source = SharedPrefill(engine)
    together = told(source, example, POLICIES)
    assert told(source, example, POLICIES[::-1]) == together
    for policy in POLICIES:
        assert told(source, example, [policy]) == {policy: together[policy]}


def test_what_keeps_all_answers_as_the_full_cache_and_what_drops_is_smaller(engine, example: Example) -> None:
    found = told(SharedPrefill(engine), example, POLICIES)
    full = [text for text, _ in found["full"]]
    assert [text for text, _ in found["snapkv(budget=1.0)"]] == full
    for dropping in ("snapkv(budget=0.25)", "streaming_heads(window=64)"):
        assert all(less < whole for (_, less), (_, whole) in zip(found[dropping], found["full"], strict=True))


def test_the_context_is_read_once_and_every_page_is_given_back(engine, example: Example) -> None:
    engine.forget()
    free = engine.pool.free
    read: list[int] = []
    start = engine.start
    engine.start = lambda ids, sampling, **given: counted(read, start(ids, sampling, **given))
    try:
        told(SharedPrefill(engine), example, POLICIES)
    finally:
        del engine.start
    engine.forget()
    assert engine.pool.free == free
    first, *others = read
    assert first > 200  # what the questions share
    assert all(few < 120 for few in others)


def counted(read: list[int], stream):
    """The stream, whose end says how many tokens of its prompt it has read itself."""
    finish = stream.finish

    def finished():
        done = finish()
        read.append(done.usage.prompt_tokens - done.usage.reused_tokens)
        return done

    stream.finish = finished
    return stream


def test_costs_are_those_of_a_request_by_itself(engine, example: Example) -> None:
    (responses,) = SharedPrefill(engine).respond(example, [{"policy": "full"}])
    for response in responses:
        assert response.cost.reused_tokens == 0
        assert response.cost.prompt_tokens >= 297
        assert 0 < response.cost.ttft <= response.cost.total


def test_columns_say_that_the_prefill_was_shared(engine) -> None:
    source = SharedPrefill(engine)
    assert source.columns({"policy": "full"})["prefill"] == "shared"
    assert source.columns({})["policy"] == "full"
    assert source.columns({"policy": "snapkv"})["policy"].startswith("snapkv(budget=0.25")
