"""A decoder on a processor: the model's own forward, its quick form, and its quick form with rounded weights.

Speed and quality of each, beside llama.cpp on the same GGUF file where `--llama PYTHON` names an interpreter that has
llama-cpp-python. Wall seconds suffer from whatever else runs on the machine; processor seconds suffer less.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Bar, Options, Result, at_least, at_most, run
from longreach.config import load_settings
from longreach.model import embedded
from longreach.model.fast.attending import attending
from longreach.model.fast.quicken import Fast, plain_attention, quicken
from longreach.model.load import load

LLAMA = """
import json, sys, time
from llama_cpp import Llama
file, threads, contexts, steps = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
for context in contexts:
    model = Llama(file, n_ctx=context + 64, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False)
    ids = [100 + at * 7919 % 40000 for at in range(context)]
    found = []
    for work in [lambda: model.eval(ids)] + [lambda: model.eval([5])] * steps:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - wall, time.process_time() - processor))
    print(json.dumps([context, found[0], found[1:]]))
"""


LENT: list[Any] = []
"""The attention that the model's own forward is to use at the moment."""


class Buffers:
    """The simplest cache: keys and values of one sequence, one buffer a layer, attended to by PyTorch."""

    def __init__(self, config: Any, room: int, filled: int, dtype: torch.dtype) -> None:
        shape = (1, config.num_key_value_heads, room, config.hidden_size // config.num_attention_heads)
        self.keys = [torch.zeros(shape, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self.filled = filled

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        layer: Any = module.layer_idx
        keys, values = self.keys[layer], self.values[layer]
        end = self.filled + query.shape[2]
        keys[:, :, self.filled : end] = key
        values[:, :, self.filled : end] = value
        several = query.shape[2] > 1
        keys, values = keys[:, :, :end], values[:, :, :end]
        if several:  # many queries wait for the arithmetic, which is quicker in float32
            heads, keys, values = query, keys.to(query.dtype), values.to(query.dtype)
        else:
            heads = query.view(1, keys.shape[1], -1, query.shape[3]).to(keys.dtype)
        out = nn.functional.scaled_dot_product_attention(
            heads, keys, values, is_causal=several, scale=options["scaling"], enable_gqa=several
        )
        return out.view_as(query).transpose(1, 2).to(query.dtype), None


def rounded(dtype: torch.dtype) -> Callable[..., Any]:
    """Attention with queries, keys and values rounded to `dtype`, for judging quality."""

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        query, key, value = (each.to(dtype).to(query.dtype) for each in (query, key, value))
        return plain_attention(module, query, key, value, *args, **options)

    return attend


@dataclass
class Case:
    """A way to run the model: `run(ids, positions, rows, attention)`. It took `seconds` of the processor to make, and
    `megabytes` beside the model's weights."""

    name: str
    run: Callable[..., Tensor]
    seconds: float
    megabytes: float


def cases(model: Any, names: list[str]) -> list[Case]:
    """The model's own forward, which attends by `LENT`, and its quick forms."""

    def slow(ids: Tensor, positions: Tensor, rows: Tensor, attention: Any) -> Tensor:
        LENT.append(attention)
        logits: Tensor = model(input_ids=ids, position_ids=positions, logits_to_keep=rows, use_cache=False).logits
        LENT.clear()
        return logits

    found = [Case("transformers", slow, 0.0, 0.0)]
    for name in names:
        began = time.process_time()
        few, many = ("own", "dynamic") if name == "dynamic" else (name, "own")
        fast = quicken(model, few=few, many=many)  # type: ignore[arg-type]
        assert fast.quick, fast.why
        found.append(Case(name, fast, time.process_time() - began, fast.bytes / 1e6))
    return found


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def timed(case: Case, config: Any, context: int, tokens: int, times: int, kv: torch.dtype) -> list[tuple[float, float]]:
    """Seconds of `tokens` at once after `context` others, whose keys and values are in the format `kv`."""
    ids = 5 + torch.arange(tokens)[None]
    positions, rows = context + torch.arange(tokens)[None], torch.tensor([tokens - 1])
    buffers = Buffers(config, context + tokens, context, kv)
    return [clock(lambda: case.run(ids, positions, rows, buffers)) for _ in range(times)]


def quality(model: Any, case: Case, ids: Tensor, kv: torch.dtype) -> tuple[float, float]:
    """Mean KL divergence from the model, and how often both hold the same token for likeliest. Rounded weights for few
    tokens are judged as if all tokens were few."""
    if not isinstance(case.run, Fast):
        return 0.0, 1.0
    forward = case.run.many if case.name == "dynamic" else case.run.few
    positions = torch.arange(ids.shape[1])
    wanted = model(input_ids=ids).logits[0].log_softmax(-1)
    found = forward(ids, positions[None], positions, rounded(kv))[0].log_softmax(-1)
    divergence = (wanted.exp() * (wanted - found)).sum(-1).mean()
    return float(divergence), float((wanted.argmax(-1) == found.argmax(-1)).float().mean())


def llama(python: str, threads: int, contexts: list[int], steps: int) -> dict[int, tuple[Any, Any]]:
    """Of llama.cpp, by context: seconds of prefill and of each decoding step."""
    file = next(embedded.folder(load_settings().cache).parent.glob("*.gguf"))
    asked = [python, "-c", LLAMA, str(file), str(threads), json.dumps(contexts), str(steps)]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    return {context: (prefill, decode) for context, prefill, decode in map(json.loads, lines)}


def measure(options: Options) -> Result:
    """All of it on the embedded model in float32."""
    extra = options.extra
    kv: torch.dtype = getattr(torch, extra.kv)
    torch.set_num_threads(extra.threads)
    loaded = load("embedded", cache=load_settings().cache, device="cpu", dtype="float32")
    model, config = loaded.model, loaded.model.config
    ways = cases(model, ["own", "auto", "int8", "dynamic"])
    text = next(iter(json.loads(gzip.decompress((options.data / "books.json.gz").read_bytes())).values()))
    ids = torch.tensor([loaded.tokenizer(text[50_000:60_000])["input_ids"][: 256 if options.quick else 1024]])
    contexts = [512] if options.quick else [512, 2048]
    steps, rounds = (4, 1) if options.quick else (12, 2)
    decode: dict[tuple[str, int], list[tuple[float, float]]] = {}
    prefill: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with torch.inference_mode():
        good = {case.name: quality(model, case, ids, kv) for case in ways}
    with torch.inference_mode(), attending(model, lambda *args, **options: LENT[0](*args, **options)):
        for _ in range(rounds):  # A B A B: what else runs on the machine is shared by all
            for context in contexts:
                for case in ways[:4]:
                    decode.setdefault((case.name, context), []).extend(timed(case, config, context, 1, steps, kv)[1:])
                if extra.llama:
                    read, wrote = llama(extra.llama, extra.threads, [context], steps)[context]
                    prefill.setdefault(("llama.cpp", context), []).append(read)
                    decode.setdefault(("llama.cpp", context), []).extend(wrote[1:])
        for context in contexts:
            for case in (ways[0], ways[1], ways[4]):
                prefill[case.name, context] = timed(case, config, 0, context, 1 if options.quick else 2, kv)
    rows = []
    for name in [case.name for case in ways] + (["llama.cpp"] if extra.llama else []):
        divergence, top = good.get(name, (None, None))
        made = next((case for case in ways if case.name == name), None)
        for context in contexts:
            steps_of, read_of = decode.get((name, context)), prefill.get((name, context))
            rows.append(
                {
                    "way": name,
                    "context": context,
                    "decode_ms": _median(steps_of, 0, 1e3),
                    "decode_processor_ms": _median(steps_of, 1, 1e3),
                    "prefill_tokens_s": round(context / min(each[0] for each in read_of), 1) if read_of else None,
                    "prefill_processor_s": _median(read_of, 1, 1),
                    "KL": None if divergence is None else round(divergence, 6),
                    "top1": None if top is None else round(top, 4),
                    "made_s": round(made.seconds, 2) if made else None,
                    "extra_MB": round(made.megabytes, 1) if made else None,
                }
            )
    return Result(
        rows,
        _bars(decode, prefill, good, contexts[-1], exact=kv == torch.float32),
        [f"float32, {extra.threads} threads, KV in {extra.kv}"],
    )


def _median(found: list[tuple[float, float]] | None, which: int, unit: float) -> float | None:
    return round(unit * statistics.median(each[which] for each in found), 2) if found else None


def _bars(decode: Any, prefill: Any, good: dict[str, tuple[float, float]], context: int, *, exact: bool) -> list[Bar]:
    """What must hold; against llama.cpp only where it was measured."""
    bars = [
        at_most("KL of the quick form with the model's own weights", good["own"][0], 1e-6 if exact else 0.001),
        at_most("KL with weights in auto", good["auto"][0], 0.003),
    ]
    step = {name: statistics.median(s[0] for s in found) for (name, at), found in decode.items() if at == context}
    bars.append(at_least(f"decode at {context}: own over transformers", step["transformers"] / step["own"], 1.0))
    bars.append(at_least(f"decode at {context}: auto over transformers", step["transformers"] / step["auto"], 2.0))
    if "llama.cpp" in step:
        bars.append(at_least(f"decode at {context}: auto over llama.cpp", step["llama.cpp"] / step["auto"], 1.0))
        theirs, ours = (min(each[0] for each in prefill[name, context]) for name in ("llama.cpp", "own"))
        bars.append(at_least(f"prefill of {context}: own over llama.cpp", theirs / ours, 2.0))
    return bars


def arguments(parser: argparse.ArgumentParser) -> None:
    """Threads, the format of the cache, and where llama.cpp is."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv", choices=("float32", "bfloat16"), default="float32", help="format of keys and values")
    parser.add_argument("--llama", metavar="PYTHON", help="an interpreter that has llama-cpp-python")


if __name__ == "__main__":
    run("cpu", measure, about=__doc__ or "", arguments=arguments)
