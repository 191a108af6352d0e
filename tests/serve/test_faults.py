"""What may befall a server: it is killed, its disk is full, its clients hang, its clock jumps, its memory is too small.
No document is lost, no answer is wrong, and it goes on."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from longreach.engine.paged import PagedEngine
from longreach.serve.keys import KeyStore
from serving import PUMP, Running, Serving

Made = Callable[..., PagedEngine]
TORQUE = "The torque limit of the bolts is 25 Nm."
TALK = {"model": "scripted", "messages": [{"role": "user", "content": "Tell me."}]}
SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNTED = 'mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@"'


@contextmanager
def process(folder: Path, before: Sequence[str] = (), **options: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server in a process of its own, which is killed at the end."""
    script = str(Path(__file__).parent / "killed.py")
    command = [*before, sys.executable, script, str(folder), json.dumps(options)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert child.stdout is not None
        yield child.stdout.readline().strip(), child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def finished(client: httpx.Client, library: str = "notes") -> None:
    """Wait until nothing is on its way."""
    for _ in range(6000):
        if not client.get(f"/v1/libraries/{library}").json()["unfinished_uploads"]:
            return
        time.sleep(0.05)
    raise AssertionError("the uploads do not end")


class Clients:
    """Clients that upload, replace, delete and ask until the server is gone, and what it told them."""

    def __init__(self, url: str, secret: str, name: str) -> None:
        self.url, self.secret, self.name = url, secret, name
        self.taken: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.replaced = [""]
        self.wrong: list[str] = []
        work = (self.upload, self.replace, self.delete, self.ask, self.ask)
        self.threads = [threading.Thread(target=self._until_gone, args=(one,), daemon=True) for one in work]

    def _until_gone(self, work: Callable[[httpx.Client, int], None]) -> None:
        with httpx.Client(base_url=self.url, headers={"X-API-Key": self.secret}, timeout=120) as client:
            for number in range(10_000):
                try:
                    work(client, number)
                except httpx.HTTPError:
                    return

    def upload(self, client: httpx.Client, number: int) -> None:
        name, text = f"{self.name}-{number}", f"Document {self.name}-{number} tells of cork and of {'words ' * 50}"
        if self._put(client, name, text):
            self.taken[name] = text

    def replace(self, client: httpx.Client, number: int) -> None:
        self.replaced.append(f"This was written as number {number} of {self.name}.")
        if self._put(client, "replaced", self.replaced[-1]):
            del self.replaced[:-1]

    def delete(self, client: httpx.Client, number: int) -> None:
        name = f"{self.name}-gone-{number}"
        self._put(client, name, f"Nobody shall read {name}.")
        if client.delete(f"/v1/libraries/notes/documents/{name}").status_code == 200:
            self.deleted.add(name)

    def ask(self, client: httpx.Client, number: int) -> None:
        told = client.post("/v1/libraries/notes/ask", json={"question": "What is the torque limit?"}).json()
        if [one["quote"] for one in told["citations"]] != [TORQUE]:
            self.wrong.append(json.dumps(told))

    def _put(self, client: httpx.Client, name: str, text: str) -> bool:
        return client.put(f"/v1/libraries/notes/documents/{name}", json={"text": text}).status_code == 202


@pytest.mark.thorough
def test_killed_under_load_it_comes_back_with_all_that_it_had(tmp_path: Path) -> None:
    key, secret = KeyStore(tmp_path / "serve").create("anna", write=True, quota=50_000_000)
    taken: dict[str, str] = {}
    deleted: set[str] = set()
    replaced = [""]
    rng = random.Random(5)
    for number in range(4):
        with (
            process(tmp_path) as (url, child),
            httpx.Client(base_url=url, headers={"X-API-Key": secret}, timeout=120) as client,
        ):
            if not number:
                assert client.post("/v1/libraries", json={"name": "notes"}).status_code == 201
                client.put("/v1/libraries/notes/documents/pump", json={"text": PUMP})
            finished(client)
            for name, text in taken.items():
                assert client.get(f"/v1/libraries/notes/documents/{name}").json()["text"] == text
            for name in deleted:
                assert client.get(f"/v1/libraries/notes/documents/{name}").status_code == 404
            if number:
                assert client.get("/v1/libraries/notes/documents/replaced").json()["text"] in replaced
            uploads = client.get("/v1/libraries/notes/uploads").json()["uploads"]
            assert {upload["status"] for upload in uploads} == {"done"}
            clients = Clients(url, secret, f"r{number}")
            for thread in clients.threads:
                thread.start()
            time.sleep(rng.uniform(1.0, 3.0))
            child.send_signal(signal.SIGKILL)
            for thread in clients.threads:
                thread.join(60)
            assert not clients.wrong
            taken |= clients.taken
            deleted |= clients.deleted
            if clients.replaced != [""]:
                replaced = clients.replaced
    assert taken
    assert deleted
    assert KeyStore(tmp_path / "serve").find(secret) == key


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a small disk of its own")
def test_a_full_disk_keeps_nobody_from_asking_and_loses_nothing(tmp_path: Path) -> None:
    if subprocess.run([*SMALL_DISK, MOUNTED, str(tmp_path), "true"], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    with (
        process(tmp_path, [*SMALL_DISK, MOUNTED, str(tmp_path)], retry_seconds=0.5) as (url, child),
        httpx.Client(base_url=url, timeout=120) as client,
    ):
        client.post("/v1/libraries", json={"name": "notes"})
        client.put("/v1/libraries/notes/documents/pump", json={"text": PUMP})
        finished(client)
        ballast = Path(f"/proc/{child.pid}/root{tmp_path}/ballast")
        taken: dict[str, str] = {}
        refused = 0
        for left in (600_000, 60_000, 0):
            fill(ballast, left)
            for number in range(2):
                name, text = f"{left}-{number}", f"Document {left}-{number} tells of {'cork ' * 1000}"
                told = client.put(f"/v1/libraries/notes/documents/{name}", json={"text": text})
                if told.status_code == 202:
                    taken[name] = text
                else:
                    assert (told.status_code, told.json()["error"]["code"]) == (507, "disk_full")
                    refused += 1
            assert client.post("/v1/chat/completions", json=TALK).status_code == 200
            asked = client.post("/v1/libraries/notes/ask", json={"question": "What is the torque limit?"})
            assert [one["quote"] for one in asked.json()["citations"]] == [TORQUE]
        assert refused
        ballast.unlink()
        finished(client)
        for name, text in taken.items():
            assert client.get(f"/v1/libraries/notes/documents/{name}").json()["text"] == text


def fill(ballast: Path, left: int) -> None:
    """Let the disk of `ballast` have `left` bytes."""
    with open(ballast, "ab") as file:
        room = os.statvfs(ballast)
        more = room.f_bavail * room.f_frsize - left
        while more > 0:
            try:
                more -= os.write(file.fileno(), b"x" * min(more, 65536))
            except OSError:
                break


@pytest.mark.thorough
def test_a_thousand_connections_that_never_send_keep_nobody_out(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1500:
        pytest.skip("so many connections cannot be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    silent: list[socket.socket] = []
    try:
        with process(tmp_path, header_seconds=5.0) as (url, _), httpx.Client(base_url=url, timeout=120) as client:
            place = httpx.URL(url)
            silent += [socket.create_connection((place.host, place.port), timeout=60) for _ in range(1000)]
            assert client.post("/v1/chat/completions", json=TALK).status_code == 200
            assert client.get("/health").status_code == 200
            assert all(one.recv(10) == b"" for one in silent)
            assert client.post("/v1/chat/completions", json=TALK).status_code == 200
    finally:
        for one in silent:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.thorough
def test_who_reads_a_byte_a_second_gets_all_and_holds_nobody_up(serving: Serving, tiny: Made) -> None:
    with serving(tiny(), running=4) as server:
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 300, "temperature": 0, "ignore_eos": True}
        options = {key: value for key, value in body.items() if key != "ignore_eos"}
        exact = server.openai().completions.create(**options, extra_body={"ignore_eos": True}).choices[0].text
        slow = [_asked(server, {**body, "stream": True}) for _ in range(8)]
        said = [b""] * len(slow)
        for _ in range(3):
            said = [had + one.recv(1) for had, one in zip(said, slow, strict=True)]
            assert server.openai().completions.create(model="tiny", prompt="A dog", max_tokens=4).choices[0].text
            time.sleep(1)
        for had, one in zip(said, slow, strict=True):
            whole = had
            while b"[DONE]" not in whole:
                whole += one.recv(65536)
            one.close()
            assert _text(whole) == exact


def _asked(server: Running, body: dict[str, Any]) -> socket.socket:
    """A connection on which an answer comes, with little room for what was not read."""
    content, url = json.dumps(body).encode(), httpx.URL(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(60)
    connection.connect((url.host, url.port))
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def _text(answer: bytes) -> str:
    """The text of a stream of completions as it came over the wire."""
    events = [line[6:] for line in answer.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


def test_a_clock_that_jumps_loses_nothing_and_changes_no_answer(
    serving: Serving, tiny: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    year, real = 365 * 24 * 3600.0, time.time
    off = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + off[0])
    secret = KeyStore(tmp_path / "serve").create("anna", write=True, per_minute=600, quota=100_000)[1]
    texts = {}
    for turn, jump in enumerate((0.0, 10 * year, -20 * year)):
        with serving(tiny(), {"answer": "generate(max_tokens=4)"}) as server, server.http(secret) as client:
            if not turn:
                client.post("/v1/libraries", json={"name": "notes"})
            ask = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 30, "temperature": 0, "stream": True}
            exact = tiny().generate(["Once upon a time"], max_tokens=30)[0].text
            said = ""
            with client.stream("POST", "/v1/completions", json=ask) as answer:
                for line in answer.iter_lines():
                    off[0] = jump if len(said) > 10 else off[0]
                    said += _text(line.encode())
            assert said == exact
            for number in range(3):
                texts[f"{turn}-{number}"] = f"Document {turn}-{number} tells of cork."
                name = f"/v1/libraries/notes/documents/{turn}-{number}"
                assert client.put(name, json={"text": texts[f"{turn}-{number}"]}).status_code == 202
                off[0] = -off[0]
            server.indexed("notes", client)
            for name, text in texts.items():
                assert client.get(f"/v1/libraries/notes/documents/{name}").json()["text"] == text
            found = client.post("/v1/libraries/notes/search", json={"query": "cork", "k": 50}).json()["hits"]
            assert {hit["document"] for hit in found} == set(texts)


def test_with_too_little_memory_for_all_each_gets_its_own_answer_or_is_told(serving: Serving, tiny: Made) -> None:
    prompts = [f"Once upon a time there was a {animal}" for animal in ("dog", "cat", "bird", "fish", "girl", "boy")]
    exact = {one.strip(): tiny().generate([one], max_tokens=60)[0].text for one in prompts}
    engine = tiny(kv_bytes=tiny().kv_bytes_of(100))
    with serving(engine) as server:
        said: dict[str, str] = {}
        told: list[openai.APIStatusError] = []

        def ask(prompt: str) -> None:
            try:
                answer = server.openai().completions.create(model="tiny", prompt=prompt, max_tokens=60, temperature=0)
                said[prompt] = answer.choices[0].text
            except openai.APIStatusError as error:
                told.append(error)

        threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(said) + len(told) == len(prompts)
        assert said
        assert all(exact[prompt] == text for prompt, text in said.items())
        assert all(error.code == "model_error" for error in told)
        again = server.openai().completions.create(model="tiny", prompt=prompts[0], max_tokens=60, temperature=0)
        assert again.choices[0].text == exact[prompts[0]]
        assert engine.pool.used == engine.held_pages()["prefix"]
