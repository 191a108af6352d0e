"""Servers of the embedded model, ours and others', each started alone in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from longreach import fetch
from longreach.config import load_settings
from longreach.model import embedded

STARTING = 240.0
"""Seconds that a server may take until it is ready."""
CONTEXT = 2048
"""Tokens for prompt and answer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: how it is started (`{port}` stands for its port), where it says that it is ready, what its model is
    called there, and in words how it was set."""

    name: str
    command: Sequence[str]
    ready: str
    model: str
    settings: str
    environment: Mapping[str, str] = field(default_factory=dict)


def ours(folder: Path, running: int) -> Peer:
    """`longreach serve`, with what it keeps in `folder`."""
    command = [sys.executable, "-m", "longreach", "serve", "--folder", str(folder), "--port", "{port}"]
    return Peer(
        "longreach",
        [*command, "--running", str(running), "--queue", "256", "--model", "embedded"],
        "/ready",
        "embedded",
        f"--running {running} --queue 256; else as it comes",
    )


def llama_cpp(python: str, threads: int) -> Peer:
    """`python -m llama_cpp.server`. It works on one request at a time; `interrupt_requests`, with which a new one ends
    the one before, is off, and its cache of prompts on: what is said about a document again is not read again."""
    settings = {
        "n_ctx": CONTEXT,
        "n_threads": threads,
        "n_threads_batch": threads,
        "flash_attn": "true",
        "logits_all": "false",
        "cache": "true",
        "cache_size": 4 << 30,
        "interrupt_requests": "false",
    }
    given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    command = [python, "-m", "llama_cpp.server", "--model", str(_gguf()), "--port", "{port}", *given]
    told = ", ".join(f"{name}={value}" for name, value in settings.items())
    return Peer("llama-cpp-python", [*command, "--verbose", "false"], "/v1/models", "any", told)


def llama_cpp_batched(python: str, script: Path, threads: int, folder: Path) -> Peer:
    """`examples/server/server.py` of llama-cpp-python's sources, which is no part of its wheel: it works on many
    requests at once and shares their beginnings."""
    model = {
        "path": str(_gguf()),
        "alias": "any",
        "n_ctx": 16 * CONTEXT,
        "n_seq_max": 16,
        "n_batch": 512,
        "n_ubatch": 512,
        "threads": threads,
        "threads_batch": threads,
        "flash_attn": True,
        "kv_unified": True,
        "store_logits": False,
    }
    port = _free_port()
    file = folder / "llama.json"
    file.write_text(json.dumps({"server": {"host": "127.0.0.1", "port": port}, "model": model}), "utf-8")
    told = ", ".join(f"{name}={value}" for name, value in list(model.items())[2:])
    command = [python, str(script), "-C", str(file)]
    return Peer("llama.cpp, example server", command, f":{port}/v1/models", "any", told)


def transformers(threads: int) -> Peer:
    """`transformers serve` with continuous batching, which shares the blocks of equal beginnings."""
    settings = load_settings()
    folder = str(embedded.ensure(cache=settings.cache))
    batching = ["--continuous-batching", "--cb-num-blocks", "160", "--cb-max-batch-tokens", "512"]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--port", "{port}"]
    command += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32", *batching]
    told = " ".join([*batching, "--dtype float32"])
    return Peer("transformers", command, "/health", folder, told, {"HF_HUB_OFFLINE": "1"})


@contextmanager
def started(peer: Peer, threads: int, logs: Path) -> Iterator[str]:
    """The address of `peer` while it runs. Raises RuntimeError where it does not start."""
    port, path = str(_free_port()), peer.ready
    if path.startswith(":"):
        port, path = path[1:].split("/")[0], path[path.index("/") :]
    command = [part.replace("{port}", port) for part in peer.command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **peer.environment}
    url, log = f"http://127.0.0.1:{port}", logs / f"{'-'.join(peer.name.replace(',', '').split())}.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        _wait(url + path, process, log)
        yield url
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(timeout=15)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTING
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}: see {log}")
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.25)
    raise RuntimeError(f"it was not ready after {STARTING:g} s: see {log}")


def _gguf() -> Path:
    return fetch.place(fetch.READER, load_settings().cache) / fetch.READER.needs[0]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
