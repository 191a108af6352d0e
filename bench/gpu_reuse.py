"""Passages that were read before, on a GPU: how soon the first token comes, with the shape of Llama-3-8B and random
weights.

Random weights give speeds and no answers: that the numbers are right is checked with a tiny model in float32, on the
GPU and on the processor. Beside each time stands how long the products and the attention of what is computed take at
the rates of an H100 (750 and 600 TFLOP/s in bfloat16), or what is loaded at the speed of its link (55 GB/s).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
from pathlib import Path

import torch

from gpu_engine import SHAPE, TINY, engine_of, prompt, random_model
from harness import Options, Result, Row, at_least, at_most, run
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Part
from longreach.engine.stores import CODEC
from longreach.evaluate.continuations import begun
from longreach.kv.codec import make
from longreach.kv.reuse import reuses
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore

PRODUCTS, ATTENTION, LINK = 750e12, 600e12, 55e9
OPENING, QUESTION = 64, 32
DEFAULT = "epic(share=0.2)"
WAYS = {DEFAULT: 0.2, "gaze(share=0.15)": 0.15, "cacheblend(share=0.15)": 0.15, "ape": 0.0}
"""From pages too: ways of reuse, and the share of passages' tokens that each computes again."""


def prompt_of(passages: int, length: int, seed: int = 0) -> list[Part]:
    """An opening, `passages` passages of `length` tokens and a question."""
    parts = [Part(tuple(prompt(OPENING, 1)))]
    parts += [Part(tuple(prompt(length, 100 + seed + at)), passage=True) for at in range(passages)]
    return [*parts, Part(tuple(prompt(QUESTION, 2)))]


def store_in(folder: Path, host_bytes: int, device: str = "cuda") -> KVStore:
    """A store of its own."""
    codec = Named(CODEC, make(CODEC, device=device))
    return KVStore.open(folder, fingerprint="random", codec=codec, host_bytes=host_bytes, disk_bytes=1 << 35)


def seconds(engine: PagedEngine, parts: list[Part] | list[int]) -> float:
    """To the first token."""
    torch.cuda.synchronize()
    return begun(engine, parts, 1)[0]


def apart(folder: Path) -> float:
    """How far log-probabilities of a tiny model with passages from pages on the GPU are from those on the processor;
    the second time the passages stand in another order."""
    found = []
    for device in ("cuda", "cpu"):
        engine = engine_of(random_model(TINY, "cpu", torch.float32).to(device), 64 << 20)
        engine.keep_passages(store_in(folder / device, 1 << 28, device))
        parts = prompt_of(6, 48)
        turned = [parts[0], *parts[1:-1][::-1], parts[-1]]
        found.append([engine.explore(each).root.cpu() for each in (parts, turned)])
    return max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))


def floor(shape: dict[str, int], tokens: int, before: int) -> float:
    """Seconds that `tokens` tokens behind `before` others take at least."""
    layer = 2 * shape["hidden_size"] * (shape["hidden_size"] * 5 // 2 + 3 * shape["intermediate_size"])
    scores = 2 * 2 * shape["hidden_size"] * (before + tokens / 2)
    return shape["num_hidden_layers"] * tokens * (layer / PRODUCTS + scores / ATTENTION)


def measure(options: Options) -> Result:
    times = 1 if options.quick else 3
    sizes = [(8, 512)] if options.quick else [(8, 512), (16, 512), (16, 2048)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        wrong = apart(folder / "tiny")
        model = random_model(SHAPE, "cuda", torch.bfloat16)
        for passages, length in sizes:
            full = [token for part in prompt_of(passages, length) for token in part.token_ids]
            plain = engine_of(model, 10 << 30)
            seconds(plain, full)
            taken = {"full": [seconds(plain, full) for _ in range(times)]}
            del plain
            _let_go()
            for tier, host in (("host", 1 << 34), ("disk", 0)):
                engine = engine_of(model, 10 << 30)
                store = store_in(folder / f"{tier} {passages} {length}", host)
                engine.keep_passages(store)
                seconds(engine, prompt_of(2, length, seed=1000))  # what is compiled at the first call
                if tier == "host":
                    taken["miss"] = [seconds(engine, prompt_of(passages, length))]
                    taken["pages"] = [seconds(engine, prompt_of(passages, length)) for _ in range(times)]
                    assert engine.passages is not None
                    for way in WAYS:
                        engine.passages.repair_by(reuses.make(way))
                        seconds(engine, prompt_of(passages, length))
                        taken[way] = [seconds(engine, prompt_of(passages, length)) for _ in range(times)]
                    engine.passages.repair_by(None)
                else:
                    seconds(engine, prompt_of(passages, length))
                while store.unwritten:
                    store.write_back()
                    store.flush()
                for way in (None, DEFAULT):
                    assert engine.passages is not None
                    engine.passages.repair_by(way and reuses.make(way))
                    found = taken.setdefault(tier if way is None else f"{tier}, {way}", [])
                    for _ in range(times):
                        store.evict(len(engine.pool))
                        seconds(engine, prompt_of(1, length, seed=2000))  # the opening is in pages again
                        found.append(seconds(engine, prompt_of(passages, length)))
                stats = store.stats()
                bytes_kept = max(stats.disk.bytes, stats.host.bytes)
                store.close()
                del engine, store
                _let_go()
            tokens = passages * length
            asked = floor(SHAPE, QUESTION, OPENING + tokens)
            limits = {
                way: asked * (1 + way.startswith("gaze")) + floor(SHAPE, int(share * tokens), OPENING + tokens // 2)
                for way, share in WAYS.items()
            }
            limits["cacheblend(share=0.15)"] += floor(SHAPE, tokens, OPENING) * 2 / SHAPE["num_hidden_layers"]
            limits |= {
                "full": floor(SHAPE, len(full), 0),
                "miss": floor(SHAPE, length, OPENING) * passages,
                "pages": asked,
                "host": asked + bytes_kept / LINK,
                "disk": asked + bytes_kept / LINK,
            }
            limits |= {f"{tier}, {DEFAULT}": limits[DEFAULT] + bytes_kept / LINK for tier in ("host", "disk")}
            rows += [
                {
                    "passages": f"{passages} x {length}",
                    "from": name,
                    "first token, ms": round(1e3 * statistics.median(found), 1),
                    "at least, ms": round(1e3 * limits[name], 1),
                    "times full": round(statistics.median(taken["full"]) / statistics.median(found), 2),
                    "MB kept": round(bytes_kept / 1e6),
                }
                for name, found in taken.items()
            ]
            for row in rows[-len(taken) :]:
                print(row, flush=True)
    best = {row["from"]: row["times full"] for row in rows if row["passages"] == f"{sizes[-1][0]} x {sizes[-1][1]}"}
    bars = [
        at_most("log-probabilities of the GPU and the processor apart", round(wrong, 6), 1e-3),
        at_least("times as soon as the full prefill, from pages", float(str(best["pages"])), 2.2),
        at_least("times as soon as the full prefill, from host memory", float(str(best["host"])), 2.2),
    ]
    return Result(rows, bars, [f"an opening of {OPENING} tokens, a question of {QUESTION}; {times} times, medians"])


def _let_go() -> None:
    """Free the pages of engines that are gone: they refer to themselves."""
    gc.collect()
    torch.cuda.empty_cache()


def arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


if __name__ == "__main__":
    run("gpu_reuse", measure, about=__doc__ or "", arguments=arguments)
