"""More requests than there is room for, clients that go away, budgets of time, the beginning and the end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from longreach.engine.paged import PagedEngine
from longreach.errors import ModelError
from longreach.serve.gate import Gate
from longreach.serve.refusals import Refusal
from serving import Running, Scripted, Serving

TALK: Any = [{"role": "user", "content": "Tell me."}]
Made = Callable[..., PagedEngine]


def slow() -> Scripted:
    """Takes twenty seconds unless it is cancelled."""
    return Scripted("word " * 200, pause=0.1)


def until(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come about")


def chat(server: Running, **options: Any) -> Any:
    return server.openai().chat.completions.create(**{"model": "scripted", "messages": TALK, **options})


def test_who_finds_the_queue_full_is_told_when_to_come_back(serving: Serving) -> None:
    with serving(slow(), {"model": "scripted"}, running=1, queue=1, drain_seconds=0.1) as server:
        streams = [chat(server, stream=True)]
        waiting = threading.Thread(target=lambda: _ignore(lambda: chat(server)), daemon=True)
        waiting.start()
        until(lambda: server.service.gate.waiting == 1)
        with pytest.raises(openai.RateLimitError) as raised:
            chat(server)
        assert raised.value.code == "queue_full"
        assert int(raised.value.response.headers["Retry-After"]) >= 1
        assert server.http().get("/health").status_code == 200
        streams[0].close()
        until(lambda: server.service.gate.waiting == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_place(serving: Serving, stream: bool) -> None:
    engine = slow()
    with serving(engine, {"model": "scripted"}) as server:
        body = {"model": "scripted", "messages": TALK, "stream": stream}
        _leave(server, "/v1/chat/completions", body, server.service)
        assert engine.cancelled.wait(20)
        until(lambda: server.service.gate.working == 0)


def test_a_client_that_goes_away_frees_its_pages(serving: Serving, tiny: Made) -> None:
    engine = tiny(reuse=False)
    with serving(engine) as server:
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 480, "ignore_eos": True, "stream": True}
        _leave(server, "/v1/completions", body, server.service)
        until(lambda: server.service.gate.working == 0 and engine.pool.used == 0)
        done = server.openai().completions.create(model="tiny", prompt="Once", max_tokens=2)
        assert done.choices[0].text


def test_many_clients_at_once_get_what_each_would_get_alone(serving: Serving, tiny: Made) -> None:
    engine = tiny()
    prompts = [f"Once upon a time there was a {animal}" for animal in ("dog", "cat", "bird", "fish", "girl", "boy")] * 2
    alone = {prompt: engine.generate([prompt], max_tokens=12)[0].text for prompt in set(prompts)}
    with serving(engine, running=4) as server:
        client = server.openai()
        said: dict[int, str] = {}

        def ask(number: int) -> None:
            parts = client.completions.create(
                model="tiny", prompt=prompts[number], max_tokens=12, temperature=0, stream=True
            )
            said[number] = "".join(part.choices[0].text for part in parts if part.choices)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert said == {number: alone[prompt] for number, prompt in enumerate(prompts)}
        assert engine.pool.used == engine.held_pages()["prefix"]


def test_an_answer_without_memory_for_it_fails_alone(serving: Serving, tiny: Made) -> None:
    engine = tiny(kv_bytes=tiny().kv_bytes_of(64))
    with serving(engine) as server:
        with pytest.raises(openai.BadRequestError):
            server.openai().completions.create(model="tiny", prompt="dog " * 100, max_tokens=100)
        assert server.openai().completions.create(model="tiny", prompt="dog", max_tokens=4).choices[0].text


def test_a_request_ends_when_its_time_is_over(serving: Serving, tiny: Made) -> None:
    with serving(tiny()) as server:
        with pytest.raises(openai.InternalServerError) as raised:
            server.openai().completions.create(
                model="tiny",
                prompt="Once",
                max_tokens=480,
                extra_body={"ignore_eos": True, "budget": {"timeout_ms": 1}},
            )
        assert (raised.value.status_code, raised.value.code) == (504, "timeout")
        until(lambda: server.service.gate.working == 0)


def test_an_answer_that_begins_too_late_for_its_budget_is_ended(serving: Serving) -> None:
    engine = slow()
    with serving(engine, {"model": "scripted", "answer": "generate"}) as server, server.http() as client:
        with pytest.raises(openai.InternalServerError) as raised:
            chat(server, extra_body={"budget": {"ttft_ms": 10}}, stream=True)
        assert raised.value.status_code == 504
        assert engine.cancelled.wait(20)
        client.post("/v1/libraries", json={"name": "notes"})
        client.put("/v1/libraries/notes/documents/a", json={"text": "The word is told."})
        server.indexed("notes", client)
        body = {"question": "What word?", "budget": {"ttft_ms": 10}}
        assert client.post("/v1/libraries/notes/ask", json=body).status_code == 504
        told = client.post("/v1/libraries/notes/ask", json={**body, "stream": True}).text
        assert "event: error" in told


def test_requests_are_told_to_wait_while_the_model_is_loaded(serving: Serving) -> None:
    loaded = threading.Event()

    def load() -> Scripted:
        loaded.wait(60)
        return Scripted()

    with serving(load, {"model": "scripted"}) as server:
        client = server.http()
        for response in (client.get("/ready"), client.post("/v1/chat/completions", json=_body())):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "starting"
            assert int(response.headers["Retry-After"]) >= 1
        assert client.get("/health").status_code == 200
        loaded.set()
        until(lambda: client.get("/ready").status_code == 200)
        assert client.post("/v1/chat/completions", json=_body()).status_code == 200


def test_a_server_whose_model_cannot_be_loaded_ends_and_says_why(serving: Serving) -> None:
    def load() -> Scripted:
        raise ModelError("there is no such model")

    with serving(load, {"model": "scripted"}) as server:
        server.thread.join(60)
        assert not server.thread.is_alive()
        assert isinstance(server.service.failure, ModelError)


def test_a_server_that_shall_end_finishes_what_runs_and_lets_nobody_in(serving: Serving) -> None:
    with serving(Scripted("a b c d e f g h", pause=0.1), {"model": "scripted"}) as server:
        stream = chat(server, stream=True)
        next(iter(stream))
        client = server.http()
        client.get("/health")
        server.server.stop()
        until(lambda: server.service.state == "draining")
        refused = client.post("/v1/chat/completions", json=_body())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert said.split() == list("abcdefgh")
        server.thread.join(30)
        assert not server.thread.is_alive()


def test_connections_that_send_nothing_or_too_slowly_are_closed(serving: Serving) -> None:
    with serving(Scripted(), {"model": "scripted"}, header_seconds=0.3, body_seconds=0.3) as server:
        host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
        silent = [socket.create_connection((host, port), timeout=30) for _ in range(50)]
        silent[0].sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc")
        silent[1].sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert chat(server).choices[0].message.content
        assert b" 408 " in silent[1].recv(4000).split(b"\r\n")[0]
        for one in silent:
            while one.recv(4000):
                pass
            one.close()


def test_who_reads_slowly_holds_no_pages(serving: Serving, tiny: Made) -> None:
    engine = tiny(reuse=False)
    with serving(engine) as server:
        content = b'{"model": "tiny", "prompt": "Once", "max_tokens": 400, "ignore_eos": true, "stream": true, "n": 4}'
        url = httpx.URL(server.url)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((url.host, url.port))
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            assert connection.recv(1)
            until(lambda: engine.pool.used == 0)
            said = b""
            while b"[DONE]" not in said:
                said += connection.recv(65536)


def test_a_request_that_is_too_large_is_refused_whether_it_says_so_or_not(serving: Serving) -> None:
    with serving(Scripted(), {"model": "scripted"}, body_bytes=1000) as server:
        client, large = server.http(), b"x" * 5000
        told = client.post("/v1/chat/completions", content=large, headers={"Content-Type": "application/json"})
        assert told.status_code == 413
        chunked = server.http().post(
            "/v1/chat/completions", content=iter([large]), headers={"Content-Type": "application/json"}
        )
        assert chunked.status_code == 413
        assert chunked.json()["error"]["code"] == "too_large"


def test_metrics_count_and_logs_hold_no_text(serving: Serving, tiny: Made) -> None:
    with serving(tiny(), {"answer": "generate(max_tokens=4)"}) as server, server.http() as client:
        client.post("/v1/libraries", json={"name": "notes"})
        client.put("/v1/libraries/notes/documents/zebra", json={"text": "The zebra said abracadabra."})
        server.indexed("notes", client)
        client.post("/v1/libraries/notes/ask", json={"question": "What did the zebra say?"})
        client.get("/v1/libraries/notes/documents/zebra")
        client.get("/zebra/abracadabra")
        server.openai().completions.create(model="tiny", prompt="Once upon abracadabra", max_tokens=8)
        told = client.get("/metrics").text
        assert re.search(r'longreach_tokens_total\{kind="generated"\} [1-9]', told)
        assert re.search(r"longreach_ttft_seconds_count [1-9]", told)
        assert re.search(r"longreach_tpot_seconds_count [1-9]", told)
        assert re.search(r'longreach_kv_pages\{owner="prefix"\} [1-9]', told)
        assert 'longreach_requests_total{route="/v1/completions",status="200"} 1.0' in told
        until(lambda: '"route": "/v1/completions"' in server.log.getvalue())
        assert "zebra" not in server.log.getvalue()
        assert "abracadabra" not in server.log.getvalue()


def test_nobody_waits_longer_than_his_time_and_turns_come_in_order() -> None:
    async def story() -> list[str]:
        gate, order = Gate(1, 8), []
        gate.open()
        first = await gate.enter("", 10)

        async def enter(name: str) -> None:
            place = await gate.enter("", 10)
            order.append(name)
            place.leave()

        waiting = [asyncio.ensure_future(enter(name)) for name in "abc"]
        await asyncio.sleep(0)
        waiting[1].cancel()
        with pytest.raises(Refusal) as raised:
            await gate.enter("", 0.01)
        assert raised.value.status == 504
        first.leave()
        first.leave()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (gate.working, gate.waiting) == (0, 0)
        await gate.empty()
        return order

    assert asyncio.run(story()) == ["a", "c"]


def test_one_tenant_cannot_take_all_places() -> None:
    async def story() -> None:
        gate = Gate(2, 2)
        gate.open()
        gate.shared = True
        places = [await gate.enter("greedy", 1), await gate.enter("greedy", 1)]
        with pytest.raises(Refusal) as raised:
            await gate.enter("greedy", 1)
        assert raised.value.status == 429
        other = asyncio.ensure_future(gate.enter("modest", 1))
        await asyncio.sleep(0)
        places[0].leave()
        (await other).leave()

    asyncio.run(story())


def _body() -> dict[str, Any]:
    return {"model": "scripted", "messages": TALK}


def _leave(server: Running, path: str, body: dict[str, Any], service: Any) -> None:
    """Ask, and close the connection while the answer is under way."""
    import json

    content = json.dumps(body).encode()
    url = httpx.URL(server.url)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        until(lambda: service.gate.working == 1)
        time.sleep(0.2)


def _ignore(work: Callable[[], object]) -> None:
    with contextlib.suppress(openai.OpenAIError, httpx.HTTPError):
        work()
