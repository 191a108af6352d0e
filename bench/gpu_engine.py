"""The engine on a GPU, with the shape of Llama-3-8B and random weights: decoding, many requests at once, a long prompt.

Beside each figure stands the physical limit: bytes that must be read over the bandwidth of copies, operations over the
rate of products, both measured on an H100 (2.96 TB/s, 750 TFLOP/s in bfloat16).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch

from harness import Bar, Options, Result, Row, at_least, at_most, run
from longreach.engine import decode_share
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Sampling
from longreach.model.load import LoadedModel

COPIES, PRODUCTS = 2.96e12, 750e12
SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 140000,
}
TINY = {**SHAPE, "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4} | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


class Letters:
    """Stands in for a tokenizer: token ids are all that is measured."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 100 for letter in text]}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "x" * len(ids)


def random_model(shape: dict[str, int], device: str, dtype: torch.dtype, **options: Any) -> Any:
    """A Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**shape, rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model: Any = LlamaForCausalLM._from_config(config, **options) if options else LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval().requires_grad_(False)


def engine_of(model: Any, kv_bytes: int, **options: Any) -> PagedEngine:
    """An engine around a model that came from nowhere."""
    weight = next(model.parameters())
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    loaded = LoadedModel("random", model, Letters(), frozenset(), "", 140000, weight.device, weight.dtype, size)
    return PagedEngine(loaded, kv_bytes=kv_bytes, reuse=False, **options)


def prompt(n: int, seed: int = 0) -> list[int]:
    """`n` token ids."""
    made = torch.Generator().manual_seed(seed)
    return [int(token) for token in torch.randint(3, 500, (n,), generator=made)]


def behind(device: str) -> float:
    """How far the tokens that a small model in float32 writes, several requests at once, are behind the best by
    transformers' own logits: 0 where each is the best."""
    exact = random_model(TINY, device, torch.float32, attn_implementation="eager")
    engine = engine_of(random_model(TINY, device, torch.float32), 256 << 20)
    for weights in (exact, engine.loaded.model):
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in weights.parameters():
                weight.copy_(torch.randn_like(weight) * (0.15 if weight.dim() > 1 else 1.0))
    prompts = [prompt(n, n) for n in (5, 70, 200)]
    worst = 0.0
    for ids, done in zip(prompts, engine.generate(prompts, max_tokens=150), strict=True):
        written = torch.tensor(done.token_ids, device=device)
        given = torch.cat((torch.tensor(ids, device=device), written))[None]
        logits = exact(given).logits[0, len(ids) - 1 : -1]
        worst = max(worst, float((logits.amax(-1) - logits.gather(1, written[:, None])[:, 0]).amax()))
    return worst


def decode(
    engine: PagedEngine, context: int, tokens: int = 24, policy: str | None = None
) -> tuple[float, float, float]:
    """Seconds of the prefill, of a token as a caller sees it, and of a step on the device alone."""
    began = time.perf_counter()
    stream = engine.start(prompt(context), Sampling(max_tokens=tokens + 8), policy=policy)
    next(stream)
    first = time.perf_counter() - began
    for _ in range(6):
        next(stream)
    seconds = []
    for _ in range(tokens):
        began = time.perf_counter()
        next(stream)
        seconds.append(time.perf_counter() - began)
    device = replayed(engine)
    stream.cancel()
    return first, statistics.median(seconds), device


def replayed(engine: PagedEngine, times: int = 10) -> float:
    """Seconds of a replay of the graph that was used last; 0 where there is none."""
    graphs = engine._runner._graphs
    if graphs is None or graphs.last is None:
        return 0.0
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        graphs.last.graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / times


def throughput(engine: PagedEngine, requests: int, low: int, high: int, new: int) -> tuple[float, int]:
    """Seconds for all requests, and how many tokens they wrote."""
    lengths = [low + (high - low) * at // max(1, requests - 1) for at in range(requests)]
    prompts = [prompt(length, length) for length in lengths]
    sampling = Sampling(max_tokens=new)
    began = time.perf_counter()
    streams = [engine.start(ids, sampling) for ids in prompts]
    written = sum(len(stream.finish().token_ids) for stream in streams)
    return time.perf_counter() - began, written


def sampled(engine: PagedEngine, context: int, samples: int, together: bool) -> float:
    """Seconds on the device of a step of `samples` samples of one prompt, whose beginning is attended to once, or by
    each."""
    with patch.object(decode_share, "WORTH", 1 if together else 1 << 40):
        sampling = Sampling(max_tokens=12, n=samples, temperature=1.0, seed=1, ignore_eos=True)
        engine.start(prompt(context, int(together)), sampling).finish()
        return replayed(engine)


def measure(options: Options) -> Result:
    if not torch.cuda.is_available() and not options.extra.rehearse:
        return Result([], [], ["there is no GPU here: nothing was measured"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = TINY if options.extra.rehearse else SHAPE
    rows: list[Row] = []
    bars: list[Bar] = [at_most("tokens behind transformers' best, in logits", round(behind(device), 6), 1e-3)]
    began = time.perf_counter()
    model = random_model(shape, device, torch.bfloat16)
    engine = engine_of(model, (26 << 30) if device == "cuda" else 256 << 20)
    quick = engine.bridge.fast is not None
    print(f"ready in {time.perf_counter() - began:.1f} s, quick form: {quick}", flush=True)
    weights = engine.loaded.bytes - model.get_input_embeddings().weight.nbytes
    entry = (
        2
        * 2
        * shape["num_hidden_layers"]
        * shape["num_key_value_heads"]
        * (shape["hidden_size"] // shape["num_attention_heads"])
    )
    long = 131072 if device == "cuda" and not options.quick else 2048
    decode(engine, 300, 4)
    for context, bar in ((1024, 7.0), (long, 13.0)):
        prefill, token, step = decode(engine, context)
        limit = 1e3 * (weights + context * entry) / COPIES
        row: Row = {
            "what": f"decode, 1 x {context:,}",
            "ms": round(1e3 * token, 2),
            "ms on the device": round(1e3 * step, 2),
        }
        rows.append({**row, "limit ms": round(limit, 2), "tokens/s": round(1 / token, 1)})
        print(rows[-1], "prefill", round(prefill, 2), flush=True)
        bars.append(at_most(f"decode at {context:,}, ms", round(1e3 * token, 2), bar))
        if context == long:
            operations = (
                2 * (weights / 2) * context + 2 * context**2 * shape["hidden_size"] * shape["num_hidden_layers"]
            )
            row = {"what": f"prefill of {context:,}", "ms": round(1e3 * prefill), "ms on the device": None}
            rows.append({**row, "limit ms": round(1e3 * operations / PRODUCTS), "tokens/s": round(context / prefill)})
            bars.append(at_most(f"prefill of {context:,}, s", round(prefill, 2), 14.0))
    _, token, step = decode(engine, long, policy="page_select(budget=4096)")
    read = weights + 4096 * entry + long // engine.pool.page_size * entry
    row = {"what": f"decode, 1 x {long:,}, page_select of 4,096", "ms": round(1e3 * token, 2)}
    row |= {"ms on the device": round(1e3 * step, 2), "limit ms": round(1e3 * read / COPIES, 2)}
    rows.append({**row, "tokens/s": round(1 / token, 1)})
    print(rows[-1], flush=True)
    for context in (2048, 16384, 65536) if device == "cuda" else ():
        for together in (False, True):
            how = "once" if together else "by each"
            row = {"what": f"16 samples of a prompt of {context:,}, attended to {how}", "ms": None}
            rows.append({**row, "ms on the device": round(1e3 * sampled(engine, context, 16, together), 2)})
            rows[-1] |= {"limit ms": round(1e3 * (weights + context * entry) / COPIES, 2), "tokens/s": None}
            print(rows[-1], flush=True)
    requests = 64 if device == "cuda" else 4
    for turn in ("first", "again"):
        seconds, written = throughput(engine, requests, 128, 1024, 128 if device == "cuda" else 8)
        rate = round(written / seconds)
        row = {
            "what": f"{requests} requests, {turn}",
            "ms": round(1e3 * seconds),
            "ms on the device": round(1e3 * replayed(engine), 2),
        }
        rows.append({**row, "limit ms": None, "tokens/s": rate})
        print(rows[-1], flush=True)
    bars.append(at_least("64 requests, tokens/s", rate, 3400))
    return Result(
        rows, bars, [f"Llama-3-8B's shape, bfloat16, {device}; 64 requests of 128 to 1,024 prompt tokens, 128 new each"]
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rehearse", action="store_true", help="a tiny model, on any device: whether it runs at all")


if __name__ == "__main__":
    run("gpu_engine", measure, about=__doc__ or "", arguments=arguments)
