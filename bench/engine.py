"""The engine on a processor: prefill, decode and many requests, beside transformers, and llama.cpp where installed;
and several samples of one prompt, which is attended to once for all of them, or by each.

All run the embedded model in this one process, one after the other, with the same threads and the same tokens. Ours
runs in float32 with weights multiplied in 8 or 4 bits for few tokens, as it does by default; transformers in what
`--dtype` says; llama.cpp the GGUF that the model comes from (`pip install llama-cpp-python`).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from harness import Bar, Options, Result, Row, at_least, run
from longreach.attention import strided_step
from longreach.engine import Engine
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Sampling

CONTEXTS = (512, 2048, 7500)
REQUESTS, PROMPT, NEW = 32, 256, 32
SAMPLES, SAMPLED = 16, 2048
"""How many samples of one prompt, and how many tokens it has."""
Timed = tuple[float, float]
"""Seconds of a prefill, and of a decoded token."""


def ours(engine: PagedEngine, ids: Sequence[int], new: int) -> Timed:
    """By our engine; nothing is reused."""
    assert engine.scheduler.prefix is not None
    engine.scheduler.prefix.clear()
    began = time.perf_counter()
    stream = engine.stream(ids, max_tokens=new + 1, ignore_eos=True)
    next(stream)
    first = time.perf_counter()
    stream.finish()
    return first - began, (time.perf_counter() - first) / new


def transformers_own(model: Any, ids: Sequence[int], new: int) -> Timed:
    """By `generate`, told to write one token and then more."""
    given = torch.tensor([list(ids)])
    options = {"do_sample": False, "attention_mask": torch.ones_like(given), "pad_token_id": 0}
    began = time.perf_counter()
    model.generate(given, max_new_tokens=1, **options)
    first = time.perf_counter() - began
    began = time.perf_counter()
    model.generate(given, max_new_tokens=new + 1, min_new_tokens=new + 1, **options)
    return first, (time.perf_counter() - began - first) / new


def llama_cpp(llama: Any, ids: Sequence[int], new: int) -> Timed:
    """By llama.cpp through llama-cpp-python."""
    llama.reset()
    began = time.perf_counter()
    llama.eval(list(ids))
    first = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(new):
        llama.eval([llama.sample(temp=0.0)])
    return first, (time.perf_counter() - began) / new


def measure(options: Options) -> Result:
    torch.set_num_threads(options.extra.threads)
    times, new = (1, 8) if options.quick else (3, 32)
    contexts = CONTEXTS[:1] if options.quick else CONTEXTS
    engine = Engine.load("embedded")
    assert isinstance(engine, PagedEngine)
    text = "\n".join(path.read_text() for path in sorted((Path(__file__).parent.parent / "docs").glob("*.md")))
    ids = engine.encode(text * 4)
    ours(engine, ids[:64], 140)  # long enough for the model to take its quick form
    methods: dict[str, Callable[[Sequence[int], int], Timed]] = {"longreach": lambda ids, new: ours(engine, ids, new)}
    if llama := _llama(options.extra.gguf, options.extra.threads):
        methods["llama.cpp"] = lambda ids, new: llama_cpp(llama, ids, new)
    own = _transformers(engine, options.extra.dtype)
    methods["transformers"] = lambda ids, new: transformers_own(own, ids, new)
    rows: list[Row] = []
    for context in contexts:
        found: dict[str, list[Timed]] = {name: [] for name in methods}
        for turn in range(times):
            for name, method in methods.items():
                found[name].append(method(ids[turn : turn + context], new))
        for name, timed in found.items():
            prefill, token = (statistics.median(part) for part in zip(*timed, strict=True))
            rates = {"prefill tokens/s": round(context / prefill), "decode tokens/s": round(1 / token, 1)}
            rows.append({"context": context, "method": name, **rates, "requests tokens/s": None})
            print(rows[-1], flush=True)
    prompts = [ids[97 * at : 97 * at + PROMPT] for at in range(8 if options.quick else REQUESTS)]
    for name, rate in {"longreach": _many(engine, prompts), "transformers": _batched(own, prompts)}.items():
        empty: Row = {"context": PROMPT, "method": name, "prefill tokens/s": None, "decode tokens/s": None}
        rows.append({**empty, "requests tokens/s": None if rate is None else round(rate, 1)})
        print(rows[-1], flush=True)
    for name, rate in _sampled(engine, ids[:SAMPLED], 1 if options.quick else 3, new).items():
        rows.append({"context": SAMPLED, "method": name, "prefill tokens/s": None, "decode tokens/s": None})
        rows[-1]["requests tokens/s"] = round(rate, 1)
        print(rows[-1], flush=True)
    return Result(
        rows, _bars(rows), [f"{torch.get_num_threads()} threads; {len(prompts)} requests of {PROMPT} + {NEW} tokens"]
    )


def _bars(rows: Sequence[Row]) -> list[Bar]:
    def rate(method: str, context: int, what: str) -> float | None:
        found = [row[what] for row in rows if (row["method"], row["context"]) == (method, context) and row[what]]
        return float(str(found[0])) if found else None

    bars = []
    for context in {int(str(row["context"])) for row in rows} - {PROMPT}:
        mine, theirs = (rate(name, context, "prefill tokens/s") for name in ("longreach", "llama.cpp"))
        if mine and theirs:
            bars.append(at_least(f"prefill at {context}, times llama.cpp", round(mine / theirs, 2), 2.0))
    mine, theirs = (rate(name, 2048, "decode tokens/s") for name in ("longreach", "llama.cpp"))
    if mine and theirs:
        bars.append(at_least("decode at 2048, times llama.cpp", round(mine / theirs, 2), 1.0))
    mine, theirs = (rate(name, PROMPT, "requests tokens/s") for name in ("longreach", "transformers"))
    if mine and theirs:
        bars.append(at_least("requests, times transformers' continuous batching", round(mine / theirs, 2), 3.0))
    together, each = (rate(name, SAMPLED, "requests tokens/s") for name in (_TOGETHER, _EACH))
    if together and each:
        bars.append(at_least("samples, their prompt attended to once, times by each", round(together / each, 2), 1.0))
    return bars


_TOGETHER, _EACH = (f"longreach, {SAMPLES} samples, prompt attended to {how}" for how in ("once", "by each"))


def _sampled(engine: PagedEngine, prompt: Sequence[int], times: int, new: int) -> dict[str, float]:
    """New tokens a second of all samples of one prompt, which was read before."""
    engine.generate([prompt], max_tokens=1)
    sampling = Sampling(max_tokens=new, ignore_eos=True, temperature=1.0, seed=1, n=SAMPLES)
    found: dict[str, list[float]] = {_TOGETHER: [], _EACH: []}
    for _ in range(times):
        for name, rates in found.items():
            find = strided_step.shared_beginnings if name == _TOGETHER else lambda rows: None
            with patch.object(strided_step, "shared_beginnings", find):
                began = time.perf_counter()
                engine.start(prompt, sampling).finish()
                rates.append(SAMPLES * new / (time.perf_counter() - began))
    return {name: statistics.median(rates) for name, rates in found.items()}


def _many(engine: PagedEngine, prompts: Sequence[Sequence[int]]) -> float:
    """New tokens a second of all requests together."""
    sampling = Sampling(max_tokens=NEW, ignore_eos=True)
    began = time.perf_counter()
    streams = [engine.start(prompt, sampling) for prompt in prompts]
    written = sum(len(stream.finish().token_ids) for stream in streams)
    return written / (time.perf_counter() - began)


def _batched(model: Any, prompts: Sequence[Sequence[int]]) -> float | None:
    """The same by transformers' continuous batching; None where it does not run here."""
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    began = time.perf_counter()
    try:
        done = model.generate_batch(
            inputs=[list(prompt) for prompt in prompts], generation_config=config, progress_bar=False
        )
    except Exception as error:  # it is young, and made for GPUs
        print(f"transformers' continuous batching does not run here: {error}", flush=True)
        return None
    written = sum(len(one.generated_tokens) for one in done.values())
    return written / (time.perf_counter() - began)


def _transformers(engine: PagedEngine, dtype: str) -> Any:
    """The model once more, as transformers has it."""
    from longreach.config import load_settings
    from longreach.model.load import load

    settings = load_settings()
    gc.collect()
    return load("embedded", cache=settings.cache, device="cpu", dtype=dtype).model


def _llama(gguf: Path | None, threads: int) -> Any:
    if gguf is None or importlib.util.find_spec("llama_cpp") is None:
        return None
    from llama_cpp import Llama

    return Llama(str(gguf), n_ctx=8192, n_threads=threads, n_threads_batch=threads, verbose=False)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", help="what transformers computes in")
    parser.add_argument("--gguf", type=Path, help="the GGUF file for llama.cpp")


if __name__ == "__main__":
    run("engine", measure, about=__doc__ or "", arguments=arguments)
