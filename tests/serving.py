"""Servers for tests, each in a thread of its own, on a free port of this machine."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from hashed import HashingEncoder, open_hashed
from longreach.config import Settings
from longreach.engine import Completion, Engine, Message, Piece, Prompt, Sampling, Stream
from longreach.engine.paged import PagedEngine
from longreach.errors import UnsupportedError
from longreach.serve.logs import make_log
from longreach.serve.options import ServeOptions
from longreach.serve.server import Server
from longreach.serve.service import Service
from longreach.types import Timing, Usage

PUMP = "The pump turns at 900 rpm. The torque limit of the bolts is 25 Nm. Its gasket is made of cork."


class Scripted(Engine):
    """Says one sentence, whatever it is asked; a piece every `pause` seconds. `cancelled` counts who went away."""

    model = "scripted"
    context_length = 2000
    parameters = 0
    end_tokens = frozenset()

    def __init__(self, text: str = "The torque limit of the bolts is 25 Nm.", pause: float = 0.0) -> None:
        self.text = text
        self.pause = pause
        self.prompts: list[str] = []
        self.cancelled = threading.Event()

    def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
        shown = "\n".join(part.content for part in prompt if isinstance(part, Message))
        self.prompts.append(shown)

        def run(cancelled: threading.Event) -> Generator[Piece, None, Completion]:
            for word in self.text.split(" "):
                time.sleep(self.pause)
                if cancelled.is_set():
                    return Completion("", (), "cancelled", Timing(), Usage())
                yield Piece(f"{word} ", None)
            usage = Usage(prompt_tokens=len(shown.split()), generated_tokens=len(self.text.split()))
            return Completion(self.text, (), "stop", Timing(0.1, 0.2, 0.3), usage)

        return Stream(run, self.cancelled.set)

    def count(self, text: str) -> int:
        return len(text.split())

    def tokenize(self, text: str) -> list[int]:
        raise UnsupportedError("it has no tokens")

    def encode(self, prompt: Prompt) -> list[int]:
        raise UnsupportedError("it has no tokens")

    def decode(self, token_ids: Sequence[int]) -> str:
        raise UnsupportedError("it has no tokens")


@dataclass
class Running:
    """A server that runs; `log` is what it logged."""

    service: Service
    server: Server
    url: str
    log: io.StringIO
    thread: threading.Thread

    def openai(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def http(self, key: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)

    def indexed(self, library: str, client: httpx.Client | None = None) -> list[dict[str, Any]]:
        """The uploads to a library, once all of them have ended."""
        client = client or self.http()
        for _ in range(3000):
            uploads: list[dict[str, Any]] = client.get(f"/v1/libraries/{library}/uploads").json()["uploads"]
            if all(upload["status"] in ("done", "failed") for upload in uploads):
                return uploads
            time.sleep(0.02)
        raise AssertionError("the uploads do not end")


Serving = Callable[..., AbstractContextManager[Running]]


def serve_and_tell(service: Service) -> None:
    """Run a server in this process until it is ended; its address is printed once it is ready."""
    server = Server(service)

    async def tell() -> None:
        while not server.started or service.state == "starting":
            await asyncio.sleep(0.01)
        print(server.address, flush=True)

    async def both() -> None:
        await asyncio.gather(server.serve(), tell())

    asyncio.run(both())


@contextmanager
def running(
    engine: Engine | Callable[[], Engine], folder: Path, settings: dict[str, Any], **options: Any
) -> Iterator[Running]:
    log = io.StringIO()
    made = Settings(**{"model": "tiny", "encoder": "hashing", "least_relevance": -1.0, **settings})
    service = Service(
        ServeOptions(**{"folder": folder, "port": 0, "drain_seconds": 20.0, **options}),
        made,
        make_log(log),
        make_engine=engine if not isinstance(engine, Engine) else lambda: engine,
        open_library=lambda path, create: open_hashed(path, create=create),
        load_encoder=HashingEncoder,
    )
    server = Server(service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), log.getvalue()
        time.sleep(0.005)
    url = server.address if server.servers[0].sockets else ""  # it may have ended already
    found = Running(service, server, url, log, thread)
    try:
        while service.state == "starting" and isinstance(engine, Engine):
            time.sleep(0.005)
        yield found
    finally:
        server.stop()
        thread.join(timeout=60)
        assert not thread.is_alive(), "the server does not end"


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """Makes servers in one folder: `serving(engine, settings={}, **options)`."""

    def made(engine: Engine | Callable[[], Engine], settings: dict[str, Any] | None = None, **options: Any) -> Any:
        return running(engine, tmp_path / "serve", settings or {}, **options)

    return made


@pytest.fixture(scope="session")
def tiny(storyteller: PagedEngine) -> Callable[..., PagedEngine]:
    """Makes engines of stories260k under the name "tiny", each with memory of its own."""

    def made(**options: Any) -> PagedEngine:
        engine = PagedEngine(storyteller.loaded, **{"kv_bytes": 32 << 20, **options})
        engine.model = "tiny"
        engine.quicken = lambda: None  # type: ignore[method-assign]
        return engine

    return made


@pytest.fixture(scope="module")
def shared(tiny: Callable[..., PagedEngine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for tests that leave nothing behind, with a library `manuals` that says something of a pump."""
    settings = {"answer": "generate(max_tokens=8)"}
    with running(tiny(), tmp_path_factory.mktemp("serve"), settings) as found:
        with found.http() as client:
            assert client.post("/v1/libraries", json={"name": "manuals"}).status_code == 201
            client.put("/v1/libraries/manuals/documents/pump", json={"text": PUMP, "metadata": {"year": 2025}})
            found.indexed("manuals")
        yield found
