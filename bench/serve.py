"""The server under load: eight documents asked about by 32 clients, beside those of llama-cpp-python and transformers.

Each server has the machine for itself, the same model (SmolLM2-135M), the same prompts and as many tokens to write.
Requests come as a Poisson process whether the ones before are answered or not, at rising rates until fewer than nine in
ten are answered in time; goodput is how many a second were, at the best rate. A prompt is one of eight meetings (about
1,100 tokens) and a question that was not asked before; each meeting was asked about before the load begins.

`--llama PYTHON` adds llama-cpp-python's server, PYTHON being an interpreter that has `llama-cpp-python[server]`;
`--llama-batched FILE` also the newer one of its examples.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import ROOT, Bar, Options, Result, Row, at_least, run
from serve_load import PATIENCE, Target, Told, ask, offer
from serve_peers import Peer, llama_cpp, llama_cpp_batched, ours, started, transformers

DOCUMENTS, CLIENTS, CHARACTERS = 8, 32, 4200
"""Meetings, who asks about them, and how much of a meeting is in a prompt: about 1,100 tokens."""
NEW = 32
"""Tokens of an answer at most."""
AGAIN = 2
"""Documents that are asked about a second time before the load begins."""
ENOUGH = 0.9
"""The share of requests that must be answered in time for the next rate to be tried."""
FEWEST = 8
"""Requests of a rate, at least."""
LEAST = 0.125
"""Requests a second: the lowest rate that is tried."""
BAR = 3.0
Talk = list[tuple[str, Sequence[str]]]
"""Meetings, and what is asked of each."""


def meetings(data: Path) -> Talk:
    """Of QMSum (Zhong et al. 2021): the first that are asked enough."""
    with gzip.open(data / "qmsum.json.gz", "rt", encoding="utf-8") as file:
        read = json.load(file)
    fit = [one for one in read if len(one["queries"]) >= CLIENTS // DOCUMENTS][:DOCUMENTS]
    return [("\n".join(one["turns"])[:CHARACTERS], [query[0] for query in one["queries"]]) for one in fit]


def body(peer: Peer, talk: Talk, number: int, step: str) -> dict[str, Any]:
    """The chat that request `number` of a step asks: client after client, no question twice."""
    client = number % CLIENTS
    document, questions = talk[client % DOCUMENTS]
    question = questions[client // DOCUMENTS % len(questions)]
    content = f"{document}\n\nQuestion {number} of round {step}: {question}"
    message = {"role": "user", "content": content}
    return {"model": peer.model, "messages": [message], "max_tokens": NEW, "temperature": 0}


class Measured:
    """What was found of one server."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.rows: list[Row] = []
        self.first: list[Told] = []
        self.goodput = 0.0

    def quiet(self, url: str, talk: Talk) -> None:
        """Ask about each document, one after the other, and about some again."""
        for number in range(DOCUMENTS + AGAIN):
            short = {"max_tokens": NEW if number >= DOCUMENTS else NEW // 4}
            given = {**body(self.peer, talk, number, "0"), **short}
            told = asyncio.run(ask(f"{url}/v1/chat/completions", number, given, 120))
            if told.error:
                raise RuntimeError(f"{self.peer.name}: {told.error}")
            self.first.append(told)

    def step(self, url: str, talk: Talk, rate: float, seconds: float, target: Target) -> bool:
        """Offer `rate` requests a second; whether enough were answered in time."""
        address, count = f"{url}/v1/chat/completions", round(rate * seconds)
        bodies = [body(self.peer, talk, number, f"{rate:.3g}") for number in range(count)]
        told = asyncio.run(offer(address, bodies, seconds, seed=7))
        good = sum(one.good(target) for one in told)
        firsts = sorted(PATIENCE if one.first is None else one.first for one in told)
        paces = [
            (one.last - one.first) / (one.pieces - 1) for one in told if one.whole and one.first and one.pieces > 1
        ]
        self.goodput = max(self.goodput, good / seconds)
        self.rows.append(
            {
                "server": self.peer.name,
                "offered/s": round(rate, 3),
                "requests": count,
                "in time": good,
                "goodput/s": round(good / seconds, 3),
                "TTFT p50 s": round(statistics.median(firsts), 3),
                "TTFT p99 s": round(firsts[min(count - 1, int(0.99 * count))], 3),
                "TPOT p50 ms": round(1000 * statistics.median(paces), 1) if paces else None,
                "TPOT p99 ms": round(1000 * sorted(paces)[min(len(paces) - 1, int(0.99 * len(paces)))], 1)
                if paces
                else None,
                "errors": sum(bool(one.error) for one in told),
            }
        )
        print(self.rows[-1], {one.error for one in told if one.error} or "", flush=True)
        asyncio.run(ask(address, 0, {**body(self.peer, talk, 0, "0"), "max_tokens": 1}, 120))  # until it is idle again
        return good >= ENOUGH * count

    def climb(self, url: str, talk: Talk, first: float, window: float, target: Target) -> None:
        """Double the rate while it can be borne (or halve it until it can), then halve what lies between twice."""

        def holds(rate: float) -> bool:
            return self.step(url, talk, rate, max(window, FEWEST / rate), target)

        rate = first
        if holds(rate):
            while holds(rate * 2):
                rate *= 2
        else:
            while rate > LEAST and not holds(rate / 2):
                rate /= 2
            rate /= 2
        middle = rate * 2**0.5
        holds(middle * 2**0.25 if holds(middle) else rate * 2**0.25)


def measure(options: Options) -> Result:
    extra, target = options.extra, Target(options.extra.ttft, options.extra.tpot)
    logs = ROOT / "build" / "serve"
    logs.mkdir(parents=True, exist_ok=True)
    talk = meetings(options.data)
    peers = [ours(logs / "folder", extra.running)]
    if extra.llama is not None:
        peers.append(llama_cpp(extra.llama, extra.threads))
    peers.append(transformers(extra.threads))
    if extra.llama is not None and extra.llama_batched is not None:
        peers.append(llama_cpp_batched(extra.llama, extra.llama_batched, extra.threads, logs))
    if extra.only:
        peers = [peer for peer in peers if any(name in peer.name for name in extra.only)]
    found, failed = [], []
    for peer in peers[:1] if options.quick else peers:
        one = Measured(peer)
        try:
            with started(peer, extra.threads, logs) as url:
                one.quiet(url, talk)
                if options.quick:
                    one.step(url, talk, 2.0, 10.0, target)
                else:
                    one.climb(url, talk, extra.first if peer is peers[0] else extra.first / 4, extra.window, target)
        except RuntimeError as error:
            failed.append(f"{peer.name} is left out: {error}")
            print(failed[-1], flush=True)
            continue
        found.append(one)
    notes = [
        str(target),
        f"{extra.threads} threads; answers of {NEW} tokens at most; TTFT beyond {PATIENCE:g} s is not told",
    ]
    notes += [*(f"{one.peer.name}: {one.peer.settings}" for one in found), *failed]
    rows = [row for one in found for row in one.rows]
    return Result(rows, _bars(found), notes, {"without load, and goodput": [_summary(one, found[-1]) for one in found]})


def _summary(one: Measured, exact: Measured) -> Row:
    """Seconds to the first token of documents that were new, and of ones that were not, and how far the answers are
    those of `exact`."""
    new, known = (
        statistics.median(told.first or PATIENCE for told in part)
        for part in (one.first[:DOCUMENTS], one.first[DOCUMENTS:])
    )
    alike = [_alike(a.text, b.text) for a, b in zip(one.first, exact.first, strict=True)]
    return {
        "server": one.peer.name,
        "goodput/s": round(one.goodput, 3),
        "TTFT new s": round(new, 3),
        "TTFT known s": round(known, 3),
        f"words as {exact.peer.name}": round(statistics.mean(alike), 3),
    }


def _alike(text: str, other: str) -> float:
    """The share of words until the first that differs."""
    mine, theirs = text.split(), other.split()
    same = next(
        (at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
    )
    return same / max(1, len(mine), len(theirs))


def _bars(found: Sequence[Measured]) -> list[Bar]:
    mine = found[0].goodput
    return [
        at_least(f"goodput, times {one.peer.name}", round(mine / max(one.goodput, LEAST / 10), 2), BAR)
        for one in found[1:]
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--running", type=int, default=32, help="requests that our server works on at once")
    parser.add_argument("--ttft", type=float, default=2.0, help="seconds to the first token at most")
    parser.add_argument("--tpot", type=float, default=0.2, help="seconds for each token after it at most")
    parser.add_argument("--first", type=float, default=2.0, help="requests a second to begin with; others: a quarter")
    parser.add_argument("--window", type=float, default=20.0, help="seconds of each rate, at least")
    parser.add_argument("--llama", metavar="PYTHON", help="an interpreter that has llama-cpp-python[server]")
    parser.add_argument("--llama-batched", type=Path, metavar="FILE", help="examples/server/server.py of its sources")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers alone whose name has one of these in it")


if __name__ == "__main__":
    run("serve", measure, about=__doc__ or "", arguments=arguments)
