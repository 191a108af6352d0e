"""The server over an hour: steady mixed work by several clients, and whether memory, pages and open files stay as they
were.

Clients chat, ask a library, search, embed, upload and delete documents, go away in the midst of answers and send what
is wrong, each one thing after another. Memory for keys and values is bounded (`kv_gb`, `store_gb`) so that it is full
before the time that counts: the last two thirds. The slope of memory is fitted to the means of twelve parts of it.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
import psutil

from harness import ROOT, Options, Result, Row, at_most, run
from serve_peers import ours, started

CLIENTS, PAUSE = 4, 0.3
"""How many at once, and the seconds between two requests of each."""
DOCUMENTS = 40
PARTS = 12
"""Parts of the time that counts."""
GROWTH = 0.05
"""The share of its memory by which a server may grow in an hour, at the upper end of the interval."""
SHOWN = 20
"""Rows of the table."""
EXPECTED = {200, 201, 202, 400, 404, 422}
"""Statuses that the work has for its answers; any other is a fault."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at a moment: seconds since the beginning, bytes of memory, open files, threads, pages in use by
    requests and in all, requests so far."""

    at: float
    memory: int
    files: int
    threads: int
    busy_pages: float
    pages: float
    requests: int


class Work:
    """What clients do, and how it was answered."""

    def __init__(self, url: str, texts: dict[str, str], questions: Sequence[str]) -> None:
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.url = url
        self.texts = texts
        self.questions = questions

    async def client(self, number: int, until: float) -> None:
        """One client, until a moment of the clock."""
        rng, kinds = random.Random(number), [self.chat, self.ask, self.search, self.embed, self.upload, self.leave]
        kinds += [self.wrong, self.long, self.look]
        async with httpx.AsyncClient(base_url=self.url, timeout=None) as client:
            while time.monotonic() < until:
                kind = rng.choices(kinds, (30, 20, 12, 6, 8, 8, 6, 4, 6))[0]
                try:
                    status = await kind(client, rng)
                    self.statuses[status] += 1
                    if status not in EXPECTED:
                        self.faults[f"{kind.__name__}: {status}"] += 1
                except (httpx.HTTPError, ValueError) as error:
                    self.faults[f"{kind.__name__}: {type(error).__name__}"] += 1
                await asyncio.sleep(rng.expovariate(1 / PAUSE))

    async def chat(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """A chat about a document, streamed or not."""
        body = self._talk(rng, rng.choice((8, 24, 48)))
        if rng.random() < 0.3:
            return (await client.post("/v1/chat/completions", json=body)).status_code
        async with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            lines = [line async for line in answer.aiter_lines()]
        if answer.status_code == 200 and "data: [DONE]" not in lines:
            raise ValueError("a stream without its end")
        return answer.status_code

    async def ask(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """A question to the library, whose citations must stand in the passages."""
        body = {"question": rng.choice(self.questions), "k": 6, "budget": {"max_prompt_tokens": 900}}
        answer = await client.post("/v1/libraries/soak/ask", json=body)
        if answer.status_code == 200:
            for one in answer.json()["citations"]:
                if one["quote"] != self.texts[one["document"]][one["start"] : one["end"]]:
                    raise ValueError("a quote that its document does not have")
        return answer.status_code

    async def search(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """A search."""
        answer = await client.post("/v1/libraries/soak/search", json={"query": rng.choice(self.questions), "k": 8})
        return answer.status_code

    async def embed(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """Vectors of some questions."""
        body = {"model": "embedded", "input": rng.sample(self.questions, 4)}
        return (await client.post("/v1/embeddings", json=body)).status_code

    async def upload(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """A document comes again, or goes and comes."""
        name = rng.choice(list(self.texts))
        address = f"/v1/libraries/soak/documents/{name}"
        if rng.random() < 0.4:
            await client.delete(address)
        return (await client.put(address, json={"text": self.texts[name]})).status_code

    async def leave(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """A chat whose client goes away after a while."""
        body = {**self._talk(rng, 200), "stream": True, "ignore_eos": True}
        try:
            async with asyncio.timeout(rng.uniform(0.05, 2.0)):
                async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                    async for _ in answer.aiter_lines():
                        pass
        except TimeoutError:
            pass
        return 200

    async def wrong(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """Something that cannot be done."""
        bodies = [{"model": "none"}, {"model": "embedded", "messages": [], "x": 1}, [], {"model": "embedded"}]
        return (await client.post("/v1/chat/completions", json=rng.choice(bodies))).status_code

    async def long(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """A prompt longer than the context."""
        body = {"model": "embedded", "prompt": "word " * 9000, "max_tokens": 4}
        return (await client.post("/v1/completions", json=body)).status_code

    async def look(self, client: httpx.AsyncClient, rng: random.Random) -> int:
        """What a dashboard asks for."""
        path = rng.choice(("/v1/models", "/v1/libraries", "/v1/libraries/soak/documents", "/v1/libraries/soak/uploads"))
        return (await client.get(path)).status_code

    def _talk(self, rng: random.Random, tokens: int) -> dict[str, Any]:
        text = self.texts[rng.choice(list(self.texts))]
        content = f"{text[:1200]}\n\n{rng.randrange(10**6)}. {rng.choice(self.questions)}"
        return {"model": "embedded", "messages": [{"role": "user", "content": content}], "max_tokens": tokens}


async def soaked(url: str, server: psutil.Process, work: Work, seconds: float, every: float) -> list[Sample]:
    """Samples while the clients work, and one when they have gone."""
    began, samples = time.monotonic(), []
    clients = [asyncio.create_task(work.client(number, began + seconds)) for number in range(CLIENTS)]
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        while not all(one.done() for one in clients):
            await asyncio.wait(clients, timeout=every)
            samples.append(await _sample(client, server, work, began))
        await asyncio.gather(*clients)
        for _ in range(600):  # until what was left behind has gone
            samples[-1] = await _sample(client, server, work, began)
            if not samples[-1].busy_pages:
                break
            await asyncio.sleep(0.2)
    return samples


async def _sample(client: httpx.AsyncClient, server: psutil.Process, work: Work, began: float) -> Sample:
    told = (await client.get("/metrics")).text.splitlines()
    pages = {
        line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in told if line.startswith("longreach_kv_pages{")
    }
    held = sum(value for owner, value in pages.items() if owner != "free")
    return Sample(
        time.monotonic() - began,
        server.memory_info().rss,
        server.num_fds(),
        server.num_threads(),
        pages["requests"],
        held,
        sum(work.statuses.values()),
    )


def slope(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """By how much `name` grows in an hour over the last two thirds, and half the width of its 95% interval: a line
    through the means of parts, since samples that follow each other are alike."""
    from scipy import stats

    late = samples[len(samples) // 3 :]
    parts = min(PARTS, len(late))
    cut = [late[len(late) * at // parts : len(late) * (at + 1) // parts] for at in range(parts)]
    hours = [statistics.mean(one.at for one in part) / 3600 for part in cut]
    values = [statistics.mean(getattr(one, name) for one in part) for part in cut]
    if parts < 3:
        return 0.0, float("inf")
    line = stats.linregress(hours, values)
    return float(line.slope), float(stats.t.ppf(0.975, parts - 2) * line.stderr)


def measure(options: Options) -> Result:
    extra, logs = options.extra, ROOT / "build" / "soak"
    minutes = 0.5 if options.quick else extra.minutes
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with gzip.open(options.data / "nq_passages.json.gz", "rt", encoding="utf-8") as file:
        pack = json.load(file)
    asked = list(pack["queries"].items())[:DOCUMENTS]
    given = {f"{number}.txt": pack["docs"][next(iter(pack["qrels"][query]))] for number, (query, _) in enumerate(asked)}
    bounds = {"LONGREACH_KV_GB": "0.25", "LONGREACH_STORE_GB": "0.1", "LONGREACH_STORE": str(logs / "kv")}
    peer = replace(ours(logs / "folder", 8), environment=bounds)
    with started(peer, extra.threads, logs) as url, httpx.Client(base_url=url, timeout=None) as client:
        port = int(url.rsplit(":", 1)[1])
        server = next(one for one in psutil.Process().children() if str(port) in one.cmdline())
        client.post("/v1/libraries", json={"name": "soak"}).raise_for_status()
        for name, text in given.items():
            client.put(f"/v1/libraries/soak/documents/{name}", json={"text": text}).raise_for_status()
        while client.get("/v1/libraries/soak").json()["unfinished_uploads"]:
            time.sleep(0.5)
        texts = {name: client.get(f"/v1/libraries/soak/documents/{name}").json()["text"] for name in given}
        work = Work(url, texts, [question for _, question in asked])
        samples = asyncio.run(soaked(url, server, work, 60 * minutes, 2.0 if options.quick else 10.0))
    memory, wide = slope(samples, "memory")
    files, files_wide = slope(samples, "files")
    usual = statistics.median(one.memory for one in samples)
    step = max(1, len(samples) // SHOWN)
    rows: list[Row] = [
        {
            "minute": round(one.at / 60, 1),
            "memory MB": round(one.memory / 1e6, 1),
            "open files": one.files,
            "threads": one.threads,
            "pages of requests": one.busy_pages,
            "pages": one.pages,
            "requests": one.requests,
        }
        for one in [*samples[::step], samples[-1]]
    ]
    faults = sum(work.faults.values())
    bars = [
        at_most("memory grows in an hour, share, upper end", round((memory + wide) / usual, 4), GROWTH),
        at_most("open files grow in an hour, lower end", round(files - files_wide, 1), 0.0),
        at_most("pages of requests when all have gone", samples[-1].busy_pages, 0.0),
        at_most("faults", faults, 0.0),
    ]
    notes = [
        f"memory: {memory / 1e6:+.1f} ± {wide / 1e6:.1f} MB an hour, at {usual / 1e6:.0f} MB",
        f"open files: {files:+.1f} ± {files_wide:.1f} an hour",
        f"answers by status: {dict(sorted(work.statuses.items()))}; faults: {dict(work.faults)}",
        f"{CLIENTS} clients; {', '.join(f'{name}={value}' for name, value in bounds.items() if value[0] == '0')}",
    ]
    return Result(rows, bars, notes)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)


if __name__ == "__main__":
    run("soak", measure, about=__doc__ or "", arguments=arguments)
