"""How long a person waits for the first token on the page, beside a program that asks the same over HTTP.

One server, the embedded model, this project's documentation. Each question is asked once unmeasured; then the page (in
Chromium) and the API ask it in turns, the first one first in every other round. The page's time goes from the click to
the frame that shows the first token; the API's from sending the request to its first event with text.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from harness import ROOT, Options, Result, Row, at_most, run

LIBRARY = "manual"
WAYS = {"generate": "written", "rank_spans": "words of the source"}
BAR = 0.1
"""Seconds that the page may be behind the API."""
CLICKED = """() => new Promise((done) => {
  const before = document.querySelector(".answer");
  const shown = () => {
    const written = document.querySelector(".written:not(.hidden)")?.textContent;
    const answer = document.querySelector(".answer");
    return Boolean(written) || (answer !== null && answer !== before);
  };
  const began = performance.now();
  new MutationObserver((_, observer) => {
    if (!shown()) return;
    observer.disconnect();
    requestAnimationFrame(() => done((performance.now() - began) / 1000));
  }).observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
  document.querySelector(".go").click();
})"""
"""Clicks, and gives the seconds until something of the answer is seen."""


def measure(options: Options) -> Result:
    from playwright.sync_api import sync_playwright

    lines = (ROOT / "bench" / "docs_questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines][: 2 if options.quick else 6]
    rounds = 1 if options.quick else 4
    rows: list[Row] = []
    bars = []
    with sync_playwright() as playwright, serving() as url:
        with httpx.Client(base_url=url, timeout=60) as client:
            fill(client)
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        path = os.environ.get("LONGREACH_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        chromium = playwright.chromium.launch(executable_path=path, args=flags)
        page = chromium.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{url}/page/")
        page.wait_for_selector(".keys")
        with httpx.Client(base_url=url, timeout=120) as client:
            for way, words in WAYS.items():
                choose(page, way)
                for question in questions:
                    by_program(client, question, way)
                times: dict[str, list[float]] = {"API": [], "page": []}
                for number in range(rounds):
                    for question in questions:
                        sides = ["API", "page"] if number % 2 == 0 else ["page", "API"]
                        for side in sides:
                            if side == "API":
                                times[side].append(by_program(client, question, way))
                            else:
                                times[side].append(by_person(page, question))
                rows += [row(words, side, seconds) for side, seconds in times.items()]
                behind = statistics.median(times["page"]) - statistics.median(times["API"])
                bars.append(at_most(f"{words}: median of the page less that of the API, s", behind, BAR))
        version = chromium.version
        chromium.close()
    note = f"Chromium {version}, headless; {len(questions)} questions, {rounds} rounds; prompts were kept from before"
    return Result(rows, bars, [note])


def row(way: str, side: str, seconds: list[float]) -> Row:
    ordered = sorted(seconds)
    return {
        "answer": way,
        "asked by": side,
        "n": len(ordered),
        "first token, median s": statistics.median(ordered),
        "least s": ordered[0],
        "90 % s": ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))],
    }


def by_program(client: httpx.Client, question: str, way: str) -> float:
    """Seconds until the API's first event with text; the rest is not waited for."""
    body = {"question": question, "stream": True, "answer": way}
    began, found = time.perf_counter(), 0.0
    with client.stream("POST", f"/v1/libraries/{LIBRARY}/ask", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line in ("event: token", "event: answer"):
                found = time.perf_counter() - began
                break
    assert found, "the API sent no answer"
    settled(client)
    return found


def by_person(page: Any, question: str) -> float:
    """Seconds from the click to the first frame with text of the answer; then it is stopped."""
    page.fill(".question textarea", question)
    page.wait_for_timeout(200)
    seconds = float(page.evaluate(CLICKED))
    page.evaluate("() => [...document.querySelectorAll('.stop')].find((b) => b.offsetParent)?.click()")
    page.wait_for_selector(".go:visible")
    page.wait_for_timeout(500)
    return seconds


def settled(client: httpx.Client) -> None:
    """Wait until nothing is computed any more."""
    for _ in range(600):
        if "longreach_requests_running 0.0" in client.get("/metrics").text:
            break
        time.sleep(0.05)
    time.sleep(0.3)


def choose(page: Any, way: str) -> None:
    """Have answers given in a way."""
    place = list(WAYS).index(way)
    page.click(".choice.way")
    page.click(f".q-menu .q-item >> nth={2 if place == 0 else 1}")
    page.wait_for_selector(".q-menu", state="detached")


def fill(client: httpx.Client) -> None:
    """Make a library of this project's documentation."""
    client.post("/v1/libraries", json={"name": LIBRARY}).raise_for_status()
    for file in sorted((ROOT / "docs").glob("*.md")):
        files = {"file": (file.name, file.read_bytes())}
        client.post(f"/v1/libraries/{LIBRARY}/documents", files=files).raise_for_status()
    wait(lambda: client.get(f"/v1/libraries/{LIBRARY}").json()["unfinished_uploads"] == 0)


@contextmanager
def serving() -> Iterator[str]:
    """A server with the embedded model, and no library yet; its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "longreach", "serve", "--port", str(port), "--folder", folder]
        command += ["--model", "embedded"]
        where = {
            **os.environ,
            "LONGREACH_STORE": str(Path(folder) / "kv"),
            "LONGREACH_LIBRARY": str(Path(folder) / "no"),
        }
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=where)
        url = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                wait(lambda: client.get("/ready").status_code == 200)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait(done: Any) -> None:
    for _ in range(3000):
        try:
            if done():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server does not get ready")


if __name__ == "__main__":
    run("page", measure, about="The first token on the page, and by the API.")
