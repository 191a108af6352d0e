"""How keys and values are kept: what a token takes, how near the answers are, how quickly they are written.

The embedded model, its weights in float32 for nearness and as they are by default for speed. Near is what follows a
thousand tokens of a novel: the answer that is greedy with pages of float32, judged token by token with the others.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from harness import Bar, Options, Result, Row, at_least, at_most, run
from longreach.config import load_settings
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Sampling
from longreach.evaluate.continuations import along
from longreach.evaluate.metrics.fidelity import Fidelity, agreement_where_sure, fidelity
from longreach.kv.coding import kept_as
from longreach.model.load import LoadedModel, load

KEPT = {name: kept_as(name) for name in ("float32", "bfloat16", "int8", "int4")}
PROMPT, ANSWER = 1000, 32
CONTEXTS = (512, 2048, 7500)
ROOM = 8000
"""Tokens that a pool holds at least."""


def prompts_of(options: Options, loaded: LoadedModel, count: int) -> list[list[int]]:
    """Pieces of the novels, `PROMPT` tokens each."""
    books = json.loads(gzip.decompress((options.data / "books.json.gz").read_bytes()))
    texts, found = list(books.values()), []
    for at in range(count):
        text = texts[at % len(texts)]
        first = len(text) // 10 + at // len(texts) * len(text) // 3
        found.append(loaded.tokenizer(text[first : first + 8 * PROMPT])["input_ids"][:PROMPT])
    return found


def nearness(loaded: LoadedModel, prompts: Sequence[list[int]]) -> dict[str, tuple[Fidelity, float]]:
    """Of each way to keep KV: fidelity to float32, and the share of tokens of which that is sure that stay the same."""
    engines = {name: PagedEngine(loaded, kv_bytes=256 << 20, kv_dtype=kept, reuse=False) for name, kept in KEPT.items()}
    told: dict[str, list[np.ndarray]] = {name: [] for name in KEPT}
    for number, prompt in enumerate(prompts, 1):
        greedy = Sampling(max_tokens=ANSWER, ignore_eos=True)
        answer = engines["float32"].start(prompt, greedy).finish().token_ids
        for name, engine in engines.items():
            told[name].append(along(engine, prompt, answer))
        so_far = {name: round(fidelity(told["float32"][-1], each[-1]).kl, 6) for name, each in told.items()}
        print(f"prompt {number}: KL {so_far}", flush=True)
    exact = np.concatenate(told["float32"])
    both = {name: (exact, np.concatenate(each)) for name, each in told.items()}
    return {name: (fidelity(*pair), float(agreement_where_sure(*pair).mean())) for name, pair in both.items()}


def decoding(loaded: LoadedModel, contexts: Sequence[int], times: int, new: int) -> dict[tuple[str, int], float]:
    """Seconds of a decoded token after so many others: the middle one of all, by turns."""
    engines = {}
    for name, kept in KEPT.items():
        a_token = PagedEngine(loaded, kv_bytes=64 << 20, kv_dtype=kept).kv_bytes_of(ROOM)
        engines[name] = PagedEngine(loaded, kv_bytes=a_token, kv_dtype=kept, products="auto")
        engines[name].quicken()
    found: dict[tuple[str, int], list[float]] = {}
    ids = [100 + at * 7919 % 40_000 for at in range(max(contexts))]
    for context in contexts:
        for _ in range(times):
            for name, engine in engines.items():
                stream = engine.start(ids[:context], Sampling(max_tokens=new + 1, ignore_eos=True))
                next(stream)
                for _ in range(new):
                    began = time.perf_counter()
                    next(stream)
                    found.setdefault((name, context), []).append(time.perf_counter() - began)
                stream.cancel()
    return {which: statistics.median(seconds) for which, seconds in found.items()}


def measure(options: Options) -> Result:
    extra = options.extra
    torch.set_num_threads(extra.threads)
    loaded = load("embedded", cache=load_settings().cache, device="cpu", dtype="float32")
    near = {}
    if extra.only != "speed":
        near = nearness(loaded, prompts_of(options, loaded, 1 if options.quick else extra.prompts))
    contexts = () if extra.only == "nearness" else CONTEXTS[:1] if options.quick else CONTEXTS
    seconds = decoding(loaded, contexts, 2 if options.quick else 4, 8 if options.quick else 32) if contexts else {}
    rows: list[Row] = []
    for name, kept in KEPT.items():
        pool = PagedEngine(loaded, kv_bytes=64 << 20, kv_dtype=kept)
        row: dict[str, str | float | None] = {"kept": name}
        row["bytes a token"] = pool.kv_bytes_of(pool.pool.page_size) / pool.pool.page_size
        told, sure = near.get(name, (None, None))
        row["KL"] = None if told is None else round(told.kl, 7)
        row["greatest KL"] = None if told is None else round(told.kl_most, 6)
        row["top-1"] = None if told is None else round(told.top1, 4)
        row["top-1 where sure"] = None if sure is None else round(sure, 4)
        for context in contexts:
            row[f"ms a token after {context:,}"] = round(1e3 * seconds[name, context], 2)
        rows.append(row)
    notes = [f"{extra.threads} threads; {PROMPT:,} + {ANSWER} tokens a prompt, {told.tokens if told else 0} judged"]
    return Result(rows, _bars(rows, contexts), notes)


def _bars(rows: Sequence[Row], contexts: Sequence[int]) -> list[Bar]:
    half, eight, four = ({key: value for key, value in row.items() if isinstance(value, float)} for row in rows[1:])
    bars = []
    for name, few, share, kl in (("int8", eight, 0.53, 0.001), ("int4", four, 0.28, 0.02)):
        took = round(few["bytes a token"] / half["bytes a token"], 4)
        bars.append(at_most(f"bytes of {name} / bfloat16", took, share))
        if "KL" in few:
            bars.append(at_most(f"KL of {name}", few["KL"], kl))
            bars.append(at_least(f"top-1 of {name} where float32 is sure", few["top-1 where sure"], 0.99))
    for context in contexts[1:]:
        what = f"ms a token after {context:,}"
        bars.append(at_least(f"int8, {what}: times as fast as bfloat16", round(half[what] / eight[what], 3), 1.0))
    return bars


def arguments(parser: argparse.ArgumentParser) -> None:
    """Threads, how many prompts are judged, and whether one half is enough."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=20, help="how many prompts answers are judged after")
    parser.add_argument("--only", choices=("nearness", "speed"), help="measure one of them alone")


if __name__ == "__main__":
    run("kv_dtype", measure, about=__doc__ or "", arguments=arguments)
