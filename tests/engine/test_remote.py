from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from longreach.engine import Engine, Logprob, Message, TokenLogprobs
from longreach.errors import InputError, ModelError, NetworkError, PromptTooLongError, UnsupportedError

HELLO = [Message("system", "Be kind."), Message("user", "Hello?")]


@dataclass
class Server:
    """A server of our own, told what to answer; it remembers what it was asked."""

    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "one", "max_model_len": 4096}, {"id": "two"}])
    pieces: list[str] = field(default_factory=lambda: ["Hel", "lo", " wor", "ld"])
    finish: str | None = "stop"
    usage: dict[str, Any] | None = None
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    models_status: int = 200
    breaks_off: bool = False
    gives: int = 1
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    url: str = ""

    def events(self, path: str) -> list[dict[str, Any]]:
        def event(text: str, finish: str | None, index: int = 0, told: dict[str, Any] | None = None) -> dict[str, Any]:
            said = {"delta": {"content": text}} if "chat" in path else {"text": text}
            choice = {"index": index, "finish_reason": finish, "logprobs": told, **said}
            return {"id": "x", "object": "chunk", "created": 0, "model": "one", "choices": [choice]}

        told = self.logprobs or [None] * len(self.pieces)
        found = [
            event(piece if index == 0 else piece.upper(), None, index, entry)
            for piece, entry in zip(self.pieces, told, strict=True)
            for index in range(self.gives)
        ]
        if self.finish:
            found += [event("", self.finish, index) for index in range(self.gives)]
        if self.usage:
            found.append({**event("", None), "choices": [], "usage": self.usage})
        return found


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def give(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            state.asked.append((self.path, {}, self.headers["Authorization"]))
            listed = [{"object": "model", "created": 0, "owned_by": "us", **model} for model in state.models]
            self.give(state.models_status, {"object": "list", "data": listed})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, body, self.headers["Authorization"]))
            if state.status != 200:
                self.give(state.status, {"error": state.error})
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            if state.breaks_off:
                self.send_header("Content-Length", "100000")
            self.end_headers()
            for event in state.events(self.path):
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            if not state.breaks_off:
                self.wfile.write(b"data: [DONE]\n\n")

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_the_first_model_answers_wherever_the_address_ends(server: Server, tail: str) -> None:
    engine = Engine.load(server.url + tail)
    assert engine.context_length == 4096
    done = engine.generate([HELLO], max_tokens=9, seed=3, stop=["!"])[0]
    assert done.text == "Hello world"
    assert done.finish_reason == "stop"
    path, body, _ = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
    assert (body["model"], body["max_tokens"], body["seed"], body["stop"]) == ("one", 9, 3, ["!"])


def test_a_fragment_chooses_the_model_and_a_text_is_continued(server: Server) -> None:
    engine = Engine.load(f"{server.url}#two")
    assert engine.context_length == 8192
    pieces = [piece.text for piece in engine.stream("Once", temperature=0.5)]
    assert "".join(pieces) == "Hello world"
    path, body, _ = server.asked[-1]
    assert path == "/v1/completions"
    assert (body["prompt"], body["model"], body["temperature"]) == ("Once", "two", 0.5)


def test_options_beyond_openais_go_by_the_names_that_servers_take(server: Server) -> None:
    changed: dict[str, Any] = {
        "top_k": 5,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "stop_token_ids": [4, 5],
        "ignore_eos": True,
        "min_tokens": 2,
    }
    Engine.load(server.url).generate([HELLO], logit_bias={7: -1.5}, logprobs=2, **changed)
    body = server.asked[-1][1]
    assert {name: body[name] for name in changed} == changed
    assert body["repeat_penalty"] == 1.1
    assert body["logit_bias"] == {"7": -1.5}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    Engine.load(server.url).generate(["Once"], logprobs=2)
    assert server.asked[-1][1]["logprobs"] == 2
    assert "top_logprobs" not in server.asked[-1][1]


def test_what_stands_at_its_default_is_left_to_the_server(server: Server) -> None:
    Engine.load(server.url).generate([HELLO])
    body = server.asked[-1][1]
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "top_p", "stream", "stream_options"}


def test_several_samples_come_side_by_side(server: Server) -> None:
    server.gives = 2
    stream = Engine.load(server.url).stream(HELLO, n=2, stop=["WORL"])
    texts = ["", ""]
    for piece in stream:
        texts[piece.sample] += piece.text
    assert server.asked[-1][1]["n"] == 2
    assert texts == ["Hello world", "HELLO "] == [done.text for done in stream.completion.samples]
    assert [done.finish_reason for done in stream.completion.samples] == ["stop", "stop"]
    server.usage = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
    usages = [done.usage for done in Engine.load(server.url).generate([HELLO], n=2)[0].samples]
    assert [(usage.prompt_tokens, usage.generated_tokens) for usage in usages] == [(20, 4), (20, 4)]


def test_a_server_that_gives_fewer_samples_than_asked_for_is_an_error(server: Server) -> None:
    with pytest.raises(UnsupportedError, match="1 of n=3"):
        Engine.load(server.url).generate([HELLO], n=3)


def test_logprobs_of_messages_and_of_texts_are_read_alike(server: Server) -> None:
    server.pieces = ["Hel", "lo"]
    tops = [[("Hel", -0.5), ("Hi", -1.0)], [("la", -0.1), ("lo", -2.0)]]
    own = [("Hel", -0.5), ("lo", -2.0)]
    want = tuple(
        TokenLogprobs(Logprob(value, text=token), tuple(Logprob(v, text=t) for t, v in top))
        for (token, value), top in zip(own, tops, strict=True)
    )

    def entry(token: str, value: float) -> dict[str, Any]:
        return {"token": token, "logprob": value, "bytes": None}

    server.logprobs = [
        {"content": [{**entry(*one), "top_logprobs": [entry(*other) for other in top]}]}
        for one, top in zip(own, tops, strict=True)
    ]
    stream = Engine.load(server.url).stream(HELLO, logprobs=2)
    assert tuple(entry for piece in stream for entry in piece.logprobs) == want == stream.completion.logprobs
    server.logprobs = [
        {"tokens": [token], "token_logprobs": [value], "top_logprobs": [dict(reversed(top))], "text_offset": [0]}
        for (token, value), top in zip(own, tops, strict=True)
    ]
    assert Engine.load(server.url).generate(["Once"], logprobs=2)[0].logprobs == want


def test_a_stop_string_does_not_end_an_answer_before_its_least_tokens(server: Server) -> None:
    engine = Engine.load(server.url)
    assert engine.generate([HELLO], stop=["l"], min_tokens=2)[0].text == "Hello wor"


def test_a_model_that_the_server_lacks_is_an_error_that_lists_what_it_has(server: Server) -> None:
    with pytest.raises(ModelError, match="one, two"):
        Engine.load(f"{server.url}#three")


def test_a_server_that_does_not_list_its_models_is_fine_when_one_is_named(server: Server) -> None:
    server.models_status = 404
    assert Engine.load(f"{server.url}#one").generate([HELLO])[0].text == "Hello world"
    with pytest.raises(ModelError, match="404"):
        Engine.load(server.url)


def test_usage_is_the_servers_where_it_tells(server: Server) -> None:
    server.usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    server.usage["prompt_tokens_details"] = {"cached_tokens": 16}
    usage = Engine.load(server.url).generate([HELLO])[0].usage
    assert (usage.prompt_tokens, usage.generated_tokens, usage.reused_tokens) == (20, 5, 16)


def test_usage_is_estimated_where_it_does_not(server: Server, tmp_path: Any) -> None:
    engine = Engine.load(server.url, cache=tmp_path)
    usage = engine.generate([HELLO])[0].usage
    assert usage.generated_tokens == 4
    assert usage.prompt_tokens == engine.count("Be kind.") + engine.count("Hello?") == 2 + 2


def test_stop_strings_hold_even_where_the_server_ignores_them(server: Server) -> None:
    stream = Engine.load(server.url).stream(HELLO, stop=["o w"])
    assert "".join(piece.text for piece in stream) == "Hell" == stream.completion.text
    assert stream.completion.finish_reason == "stop"


def test_length_and_cancel_are_told_apart(server: Server) -> None:
    server.finish = "length"
    engine = Engine.load(server.url)
    assert engine.generate([HELLO])[0].finish_reason == "length"
    stream = engine.stream(HELLO)
    first = next(stream).text
    stream.cancel()
    assert stream.finish().finish_reason == "cancelled"
    assert stream.completion.text == first == "Hel"


def test_the_key_of_the_settings_is_sent_and_never_one_of_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    Engine.load(server.url)
    assert "secret" not in server.asked[-1][2]
    Engine.load(server.url, api_key="ours")
    assert server.asked[-1][2] == "Bearer ours"


@pytest.mark.parametrize(("status", "said"), [(401, "LONGREACH_API_KEY"), (404, "#name"), (400, "refuses")])
def test_an_error_of_the_server_is_one_sentence_with_its_reason(server: Server, status: int, said: str) -> None:
    engine = Engine.load(server.url)
    server.status, server.error = status, {"message": "so it is"}
    with pytest.raises(ModelError, match=said) as caught:
        engine.generate([HELLO])
    assert "so it is" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
def test_a_server_that_fails_is_an_error(server: Server) -> None:
    engine = Engine.load(server.url)
    server.status = 500
    with pytest.raises(ModelError, match="500"):
        engine.generate([HELLO])


def test_a_prompt_too_long_for_the_server_says_so(server: Server) -> None:
    engine = Engine.load(server.url)
    server.status, server.error = 400, {"message": "at most 4096", "code": "context_length_exceeded"}
    with pytest.raises(PromptTooLongError, match="4096"):
        engine.generate([HELLO])


@pytest.mark.parametrize("breaks_off", [False, True])
def test_an_answer_that_breaks_off_is_an_error_not_an_answer(server: Server, breaks_off: bool) -> None:
    server.finish, server.breaks_off = None, breaks_off
    with pytest.raises(NetworkError, match="broke off"):
        Engine.load(server.url).generate([HELLO])


@pytest.mark.thorough
def test_nobody_there_is_a_network_error() -> None:
    with pytest.raises(NetworkError, match="no server answers"):
        Engine.load("http://127.0.0.1:9")


def test_a_server_without_models_is_an_error(server: Server) -> None:
    server.models = []
    with pytest.raises(ModelError, match="no model"):
        Engine.load(server.url)


def test_what_a_server_cannot_do_is_said(server: Server) -> None:
    engine = Engine.load(server.url)
    with pytest.raises(UnsupportedError):
        engine.explore(HELLO)
    with pytest.raises(UnsupportedError):
        engine.stream([1, 2, 3])
    with pytest.raises(UnsupportedError):
        engine.encode("text")
    with pytest.raises(InputError):
        engine.stream("")


def test_an_address_without_a_host_is_refused() -> None:
    with pytest.raises(InputError, match="no address"):
        Engine.load("http://")
