"""Replicas of an engine under Ray Serve behind the same addresses: what a client sees is what one engine does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from longreach.engine import Completion, Engine, Part, Piece, Sampling
from longreach.engine.paged import PagedEngine
from longreach.errors import EndedError, LongreachError
from longreach.serve.replicas.task import Task, Told, Write
from longreach.serve.replicas.wanted import wanted
from longreach.types import Timing, Usage
from serving import PUMP, Running, running

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'longreach[ray]'")

from longreach.serve.replicas.replicas import TRIES, Replicas  # noqa: E402

TEXT = "Once upon a time there was a little cat who liked to play in the garden. "
SETTINGS = {"prompt_tokens": 2000}
CONTEXT = 2048
"""More than the model was trained with: the prompts of what finds answers in the text are long."""
DONE = Completion("done", (1,), "stop", Timing(), Usage())


class Lost:
    """A replica that is lost after it has told `items`."""

    def __init__(self, *items: Told) -> None:
        self.items = items


class Handle:
    """Stands for a deployment: its replicas do in turn what `replicas` say."""

    def __init__(self, *replicas: Lost | list[Told]) -> None:
        self.replicas = list(replicas)
        self.sent: list[Task] = []
        self.work = self

    def options(self, **_: Any) -> Handle:
        return self

    def remote(self, task: Task) -> Any:
        self.sent.append(task)
        return _Said(self.replicas.pop(0))


class _Said:
    def __init__(self, replica: Lost | list[Told]) -> None:
        self.lost = isinstance(replica, Lost)
        self.items = list(replica.items if isinstance(replica, Lost) else replica)

    def __aiter__(self) -> _Said:
        return self

    async def __anext__(self) -> list[Told]:
        if self.items:
            return [self.items.pop(0)]
        if self.lost:
            raise ray.exceptions.ActorDiedError
        raise StopAsyncIteration

    def cancel(self) -> None:
        pass


def told_of(handle: Handle) -> list[Told]:
    """What a task is told that is sent through `handle`."""
    replicas = Replicas(handle, lambda: None)
    found: list[Told] = []
    parts = [Part((1, 2, 3))]
    task = Task(Write(parts, Sampling()), wanted(parts, "", apart=False), "", 60.0)
    replicas.send(task, found.append)
    while not (found and isinstance(found[-1], Completion | Exception)):
        time.sleep(0.001)
    replicas.close()
    return found


def test_a_task_whose_replica_is_lost_before_it_said_anything_is_done_by_another() -> None:
    piece = Piece("hello", 5)
    assert told_of(Handle(Lost(), [piece, DONE])) == [piece, DONE]


def test_an_answer_that_was_begun_ends_with_one_clear_error_where_its_replica_is_lost() -> None:
    piece = Piece("hello", 5)
    first, last = told_of(Handle(Lost(piece), [piece, DONE]))
    assert first == piece
    assert isinstance(last, LongreachError)
    assert "the replica that was answering is gone: ask again" in str(last)


def test_a_task_is_not_sent_for_ever() -> None:
    handle = Handle(*[Lost() for _ in range(TRIES + 1)])
    (last,) = told_of(handle)
    assert isinstance(last, LongreachError)
    assert len(handle.sent) == TRIES


def test_an_error_of_the_engine_is_told_as_it_is() -> None:
    error = EndedError("the request's time is over")
    assert told_of(Handle([error])) == [error]


def test_what_is_cancelled_before_it_has_begun_is_told_so() -> None:
    replicas = Replicas(Handle([DONE]), lambda: None)
    found: list[Told] = []
    task = Task(Write([Part((1,))], Sampling()), wanted([], "", apart=False), "", 1.0)
    replicas.send(task, found.append).cancel()
    replicas.close()
    assert found
    assert str(found[-1]) in ("the request was cancelled", str(DONE))


def test_what_is_sent_after_the_end_is_refused() -> None:
    replicas = Replicas(Handle(), lambda: None)
    replicas.close()
    found: list[Told] = []
    replicas.send(Task(Write([Part((1,))], Sampling()), wanted([], "", apart=False), "", 1.0), found.append)
    assert [str(error) for error in found] == ["the server is ending"]


@pytest.fixture(scope="module")
def terminations() -> Iterator[list[int]]:
    """How often this process was told to end; it goes on."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    yield told
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def replicated(stories: Path, tmp_path_factory: pytest.TempPathFactory, terminations: list[int]) -> Iterator[Running]:
    """A server with two replicas, and a library `manuals` that says something of a pump. It leaves nothing behind."""
    from longreach.serve.replicas.engine import ReplicatedEngine
    from longreach.serve.replicas.start import start_replicas

    folder, model = tmp_path_factory.mktemp("replicas"), str(stories)

    def make() -> Engine:
        engine = Engine.load(model, device="cpu", dtype="float32", reuse="off", kv_bytes=32 << 20)
        engine.model, engine.context_length = "tiny", CONTEXT
        engine.quicken = lambda: None  # type: ignore[attr-defined]
        return engine

    def begin() -> Engine:
        return ReplicatedEngine(start_replicas(make, 2, folder, gpus="leave"))

    with running(begin, folder / "serve", SETTINGS) as found:
        while found.service.state == "starting":
            time.sleep(0.05)
        assert found.service.state == "ready", found.log.getvalue()
        make_library(found)
        yield found
        theirs = [child for child in psutil.Process().children(recursive=True) if _of_ray(child)]
    assert theirs
    _, left = psutil.wait_procs(theirs, timeout=60)
    assert not left


def _of_ray(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "ray" in " ".join(process.cmdline())
    return False


def make_library(server: Running) -> None:
    with server.http() as client:
        assert client.post("/v1/libraries", json={"name": "manuals"}).status_code == 201
        client.put("/v1/libraries/manuals/documents/pump", json={"text": PUMP})
        assert [upload["status"] for upload in server.indexed("manuals")] == ["done"]


@pytest.mark.thorough
def test_an_answer_is_that_of_one_engine(replicated: Running, tiny: Callable[..., PagedEngine]) -> None:
    ours = tiny().generate([TEXT], max_tokens=12)[0].text
    completion = replicated.openai().completions.create(model="tiny", prompt=TEXT, max_tokens=12, temperature=0)
    assert completion.choices[0].text == ours
    stream = replicated.openai().completions.create(
        model="tiny", prompt=TEXT, max_tokens=12, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].text for chunk in stream]
    assert "".join(pieces) == ours
    assert len([piece for piece in pieces if piece]) > 1


@pytest.mark.thorough
@pytest.mark.parametrize("answerer", ["extract", "rank_spans"])
def test_a_question_is_answered_as_by_one_engine_with_the_same_citations(
    answerer: str, replicated: Running, tiny: Callable[..., PagedEngine], tmp_path: Path
) -> None:
    question = {"question": "What is the torque limit of the bolts?", "answer": answerer}
    engine, answers = tiny(), []
    engine.context_length = CONTEXT
    with running(engine, tmp_path, SETTINGS) as alone:
        make_library(alone)
        for server in (replicated, alone):
            with server.http() as client:
                answers.append(client.post("/v1/libraries/manuals/ask", json=question).raise_for_status().json())
    assert answers[0]["found"] == (answerer == "extract")  # who reads stories alone is not sure enough of a span
    assert all(answer["usage"]["prompt_tokens"] > 0 for answer in answers)
    assert {**answers[0], "timing": 0, "usage": 0} == {**answers[1], "timing": 0, "usage": 0}
    for citation in answers[0]["citations"]:
        assert PUMP[citation["start"] : citation["end"]] == citation["quote"]
    with replicated.http() as client:
        events = client.post("/v1/libraries/manuals/ask", json={**question, "stream": True}).text
    assert next(line for line in events.splitlines() if line.startswith("event:")) == "event: passages"
    assert json.loads(events.strip().splitlines()[-1].removeprefix("data: "))["answer"] == answers[0]["answer"]


@pytest.mark.thorough
def test_what_was_read_is_asked_of_the_replica_that_read_it(replicated: Running) -> None:
    prompts = [f"{number} {TEXT * 6}" for number in range(12)]

    def cached(prompt: str) -> int:
        done = replicated.openai().completions.create(model="tiny", prompt=prompt, max_tokens=1, temperature=0)
        return done.usage.prompt_tokens_details.cached_tokens

    assert sum(cached(prompt) > 0 for prompt in prompts) == 0
    assert sum(cached(prompt) > 0 for prompt in prompts) >= 10  # by chance, it would be half of them


@pytest.mark.thorough
def test_a_request_that_is_wrong_is_told_so_with_its_own_status(replicated: Running) -> None:
    with replicated.http() as client:
        body = {"model": "tiny", "prompt": TEXT * 100, "max_tokens": 4}
        refused = client.post("/v1/completions", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        late = client.post("/v1/completions", json={**body, "prompt": TEXT, "budget": {"timeout_ms": 1}})
        assert late.status_code == 504


@pytest.mark.thorough
def test_figures_are_those_of_all_replicas_and_pages_of_who_went_away_are_free(replicated: Running) -> None:
    with replicated.http() as client:
        body = {"model": "tiny", "prompt": TEXT, "max_tokens": 400, "ignore_eos": True, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_lines())
        held = 'longreach_kv_pages{owner="requests"} 0.0'
        figures = ""
        for _ in range(600):
            figures = client.get("/metrics").text
            if held in figures:
                break
            time.sleep(0.05)
        assert held in figures
        assert "longreach_replicas 2.0" in figures


@pytest.mark.thorough
def test_a_server_that_is_told_to_end_may_still_end_as_it_wants(replicated: Running, terminations: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert terminations == [signal.SIGTERM]


@pytest.mark.thorough
def test_where_a_replica_is_killed_its_answers_end_clearly_and_all_others_go_on(replicated: Running) -> None:
    from concurrent.futures import ThreadPoolExecutor

    body = {"model": "tiny", "max_tokens": 350, "ignore_eos": True, "temperature": 0, "stream": True}

    def ask(number: int) -> str:
        with replicated.http() as client:
            return client.post("/v1/completions", json={**body, "prompt": f"{number} {TEXT}"}).text.strip()

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(8)]
        first = next(actor for actor in ray.util.list_named_actors(all_namespaces=True) if "engine#" in actor["name"])
        ray.kill(ray.get_actor(first["name"], namespace=first["namespace"]))
        texts = [answer.result() for answer in answers]
    ends = [text.splitlines()[-1].removeprefix("data: ") for text in texts]
    lost = [json.loads(end)["error"]["code"] for end in ends if end != "[DONE]"]
    assert "[DONE]" in ends
    assert set(lost) <= {"replica_lost"}
    assert ask(9).endswith("[DONE]")
