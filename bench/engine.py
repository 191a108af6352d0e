"""The engine alone: prefill, decode, what the reuse of a past prompt saves, many continuations at once, cold start.

Wall seconds suffer from whatever else runs on the machine; processor seconds (all threads added) suffer less.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from harness import ROOT as PROJECT
from harness import Options, Result, at_least, at_most, run
from longreach.engine import ROOT, Engine
from longreach.engine.loop import LoopEngine

COLD = """
import time; began = time.perf_counter()
from longreach.engine import Engine
engine = Engine.load("embedded"); ready = time.perf_counter() - began
next(engine.stream("Hello")); print(ready, time.perf_counter() - began, time.process_time())
"""


def clock(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Medians of wall and processor seconds."""
    found = []
    for _ in range(times):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - wall, time.process_time() - processor))
    return statistics.median(f[0] for f in found), statistics.median(f[1] for f in found)


def row(
    what: str, tokens: int, wall: float, processor: float, count: int
) -> dict[str, str | int | float | bool | None]:
    """One line of the table; `count` tokens were computed in that time."""
    rate = round(count / wall, 1)
    return {
        "what": what,
        "prompt": tokens,
        "wall_s": round(wall, 3),
        "processor_s": round(processor, 3),
        "tokens_per_s": rate,
    }


def measure(options: Options) -> Result:
    """All of it on the embedded model."""
    times = 1 if options.quick else 3
    torch.set_num_threads(options.extra.threads)
    engine = loop(options.extra.dtype)
    text = "".join(page.read_text(encoding="utf-8") for page in sorted((PROJECT / "docs").glob("*.md")))
    ids = engine.encode(text * (2 + 8192 // len(text)))
    engine.generate([ids[:16]], max_tokens=4)
    rows, bars = [], []
    for size in (512,) if options.quick else (512, 2048):
        prompt = ids[:size]

        def fresh(prompt: list[int] = prompt) -> LoopEngine:
            other = LoopEngine(engine.loaded, reuse_bytes=512 << 20)
            other._read(prompt)
            return other

        wall, processor = clock(fresh, times)
        rows.append(row("prefill", size, wall, processor, size))
        warm = fresh()
        changed = [*prompt[: size - 64], *reversed(prompt[size - 64 :])]
        reuse_wall, reuse_processor = clock(lambda w=fresh, c=changed: w()._read(c), times)
        rows.append(row("prefill, all but 64 reused", size, reuse_wall - wall, reuse_processor - processor, 64))
        bars.append(at_least(f"processor time saved by reuse at {size}", processor / (reuse_processor - processor), 3))
        kept, _, _ = warm._read(prompt)
        steps = 8 if options.quick else 24
        wall, processor = clock(lambda k=kept, w=warm, n=steps: [w._step(k, 100) for _ in range(n)], times)
        rows.append(row("decode, a token", size, wall / steps, processor / steps, 1))
        exploration = warm.explore(prompt)
        for width in (1, 8, 64):
            wall, processor = clock(lambda e=exploration, n=width: e.expand([(ROOT, at) for at in range(n)]), times)
            rows.append(row(f"expand {width} nodes", size, wall, processor, width))
    ready, first, processor = (float(x) for x in subprocess.check_output([sys.executable, "-c", COLD]).split())
    rows.append(row("cold start: model ready", 0, ready, processor, 0))
    rows.append(row("cold start: first token", 0, first, processor, 0))
    alone, shared = read_twice(loop("float32"), ids[:300], 200)
    bars.append(
        at_most("largest change of a log-probability by reuse, float32", float((alone - shared).abs().max()), 1e-4)
    )
    rough_alone, rough_shared = read_twice(loop("bfloat16"), ids[:300], 200)
    notes = [
        f"{engine.loaded.dtype}, {torch.get_num_threads()} threads",
        f"bfloat16, 300 tokens of which 200 reused: KL from float32 {divergence(alone, rough_shared):.4f} with reuse, "
        f"{divergence(alone, rough_alone):.4f} without",
    ]
    return Result(rows, bars, notes)


def loop(dtype: str) -> LoopEngine:
    """The embedded model in `dtype`."""
    engine = Engine.load("embedded", dtype=dtype)
    assert isinstance(engine, LoopEngine)
    return engine


def read_twice(engine: LoopEngine, ids: list[int], reused: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [vocab] after `ids`: read in one go, and after its first `reused` tokens were read before."""
    _, _, alone = LoopEngine(engine.loaded, reuse_bytes=0)._read(ids)
    engine._read(ids[:reused])
    _, taken, shared = engine._read(ids)
    assert taken == reused
    return alone.float().log_softmax(-1), shared.float().log_softmax(-1)


def divergence(exact: torch.Tensor, other: torch.Tensor) -> float:
    """KL divergence of `other` from `exact`, both log-probabilities [vocab]."""
    return float((exact.exp() * (exact - other)).sum())


def arguments(parser: argparse.ArgumentParser) -> None:
    """On a machine that others use too, one thread measures more truly than two that wait for each other."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")


if __name__ == "__main__":
    run("engine", measure, about=__doc__ or "", arguments=arguments)
