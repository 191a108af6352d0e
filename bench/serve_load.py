"""Open-loop load on a server of OpenAI's protocol: requests come when they come, whether it has answered or not."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 9.0
"""Seconds after which a client goes away."""


@dataclass(frozen=True, slots=True)
class Target:
    """What makes an answer good: seconds to its first token, and for each token after it on average."""

    ttft: float = 2.0
    tpot: float = 0.2

    def __str__(self) -> str:
        return f"first token within {self.ttft:g} s, then {self.tpot * 1000:g} ms a token"


@dataclass(slots=True)
class Told:
    """What became of a request. Times are seconds since it was sent; None is never. `pieces` are those with text."""

    number: int
    first: float | None = None
    last: float = 0.0
    whole: bool = False
    pieces: int = 0
    text: str = ""
    error: str = ""

    def good(self, target: Target) -> bool:
        """Whether it was answered in full, in time."""
        if not self.whole or self.first is None or self.first > target.ttft:
            return False
        return self.last - self.first <= target.tpot * max(0, self.pieces - 1)


async def ask(url: str, number: int, body: dict[str, Any], patience: float = PATIENCE) -> Told:
    """Send one chat and follow its stream to the end."""
    told, began = Told(number), time.perf_counter()
    try:
        async with asyncio.timeout(patience):
            async for data in _events(url, {**body, "stream": True}):
                if data == b"[DONE]":
                    break
                event = json.loads(data)
                if "error" in event:
                    told.error = str(event["error"])[:200]
                    return told
                for choice in event["choices"]:
                    if text := choice.get("delta", {}).get("content"):
                        told.last = time.perf_counter() - began
                        told.first = told.last if told.first is None else told.first
                        told.pieces += 1
                        told.text += text
                    told.whole = told.whole or choice.get("finish_reason") in ("stop", "length")
    except TimeoutError:
        told.error = f"not answered within {patience:g} s"
    except (OSError, EOFError, ValueError) as error:
        told.error = f"{type(error).__name__}: {error}"[:200]
    return told


async def offer(url: str, bodies: Sequence[dict[str, Any]], seconds: float, seed: int) -> list[Told]:
    """Send `bodies` within `seconds`, each at a moment of its own: a Poisson process of which the count is given."""
    rng = random.Random(seed)
    moments = sorted(rng.uniform(0, seconds) for _ in bodies)
    began = time.perf_counter()
    sent = []
    for number, (moment, body) in enumerate(zip(moments, bodies, strict=True)):
        await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
        sent.append(asyncio.create_task(ask(url, number, body)))
    return [await one for one in sent]


async def _events(url: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """The data of server-sent events, as they come. Raises ValueError for another status than 200."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 20)
    try:
        content = json.dumps(body).encode()
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = answer.split(" ", 2)[1]
        if status != "200":
            raise ValueError(f"status {status}: {(await reader.read(2000)).decode(errors='replace')}")
        chunked = "transfer-encoding: chunked" in answer
        left = b""
        while block := await (_chunk(reader) if chunked else reader.read(65536)):
            *lines, left = (left + block).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    yield line[5:].strip()
    finally:
        writer.close()


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a body in chunks; empty at its end."""
    size = int((await reader.readline()).split(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]
