"""Codecs: bytes of a token's KV, and what they cost in answers.

Prompts of passages of nq_passages and musique, each with its question; the embedded model reads and answers them in
float32. Then the KV of each passage is encoded, decoded and put back, and the same answer is read again behind it: KL
divergence and agreement of its tokens. `fisher` and `ladder` follow what was measured on other
prompts of the same packs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from harness import Options, Result, Row, at_least, at_most, run
from longreach.attention.rotation import Rotation
from longreach.config import Settings
from longreach.kv.codec import Codec, Ladder, Sensitivity, decode, fit, make
from longreach.model.load import LoadedModel, load
from longreach.model.sensitivity import Reading
from longreach.model.sensitivity import measure as measure_sensitivity

NEW, PASSAGES, LONGEST = 24, 4, 256
FIXED = ["raw", "int8(group=64)", "int4(group=32)"]
CACHEGEN = [f"cachegen(level={level})" for level in range(5)]
FISHER = [f"fisher(level={level})" for level in range(5)]
LADDER = [f"ladder(level={level})" for level in range(5)]
EQUAL = (0.005, 0.02, 0.05)
"""Mean KL divergences at which sizes are compared; 0.05 is what the reuse of KV may cost by default."""


@dataclass(frozen=True)
class Asked:
    """A prompt whose tokens `spans` are passages, its KV up to the end of the last, and the exact answer."""

    prompt: list[int]
    spans: list[tuple[int, int]]
    answer: list[int]
    keys: torch.Tensor
    values: torch.Tensor
    exact: torch.Tensor

    @property
    def kv(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """That of the passages, which stand one after the other, and where they begin."""
        return self.keys[:, :, self.spans[0][0] :], self.values[:, :, self.spans[0][0] :], self.spans[0][0]

    @property
    def reading(self) -> Reading:
        return Reading(self.prompt, self.spans[0][0], self.spans[-1][1], self.answer)


@torch.inference_mode()
def ask(loaded: LoadedModel, prompt: list[int], spans: list[tuple[int, int]]) -> Asked:
    """Greedy, and the log-probabilities `[answer, vocab]` it was chosen by."""
    out = loaded.model(torch.tensor([prompt]), use_cache=True)
    cache, end = out.past_key_values, spans[-1][1]
    keys, values = (
        torch.stack([getattr(layer, kind)[0][:, :end] for layer in cache.layers]) for kind in ("keys", "values")
    )
    rows = [out.logits[0, -1].log_softmax(-1)]
    answer = [int(rows[0].argmax())]
    while len(answer) < NEW and answer[-1] not in loaded.end_tokens:
        rows.append(loaded.model(torch.tensor([answer[-1:]]), past_key_values=cache).logits[0, -1].log_softmax(-1))
        answer.append(int(rows[-1].argmax()))
    return Asked(prompt, spans, answer, keys, values, torch.stack(rows))


def prompts(loaded: LoadedModel, pack: Path, count: int, seed: int) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Of `pack`: the passages that a question needs among others, then the question."""
    content = json.loads(gzip.decompress(pack.read_bytes()))
    chance = random.Random(seed)
    queries, names = sorted(content["qrels"]), sorted(content["docs"])
    chance.shuffle(queries)

    def tokens(text: str) -> list[int]:
        found: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    made = []
    for query in queries[:count]:
        needed = list(content["qrels"][query])[: PASSAGES - 1]
        chosen = needed + [name for name in chance.sample(names, 8) if name not in needed][: PASSAGES - len(needed)]
        chance.shuffle(chosen)
        prompt = tokens("<|im_start|>system\nAnswer the question from the passages.<|im_end|>\n<|im_start|>user\n")
        spans = []
        for name in chosen:
            passage = tokens(content["docs"][name] + "\n\n")[:LONGEST]
            spans.append((len(prompt), len(prompt) + len(passage)))
            prompt += passage
        prompt += tokens(f"Question: {content['queries'][query]}<|im_end|>\n<|im_start|>assistant\n")
        made.append((prompt, spans))
    return made


@torch.inference_mode()
def fidelity(loaded: LoadedModel, asked: Sequence[Asked], codec: Codec, ladder: Ladder) -> dict[str, float]:
    """Bytes a token, mean KL divergence and agreement over the tokens of all answers, median seconds for 256 tokens."""
    from transformers import DynamicCache

    divergences, agreements, sure, written, read = [], [], [], [], []
    size = count = 0
    for one in asked:
        keys, values = one.keys.clone(), one.values.clone()
        for start, end in one.spans:
            began = time.perf_counter()
            data = codec.encode(keys[:, :, start:end], values[:, :, start:end], start)
            between = time.perf_counter()
            keys[:, :, start:end], values[:, :, start:end] = decode(data, ladder=ladder)
            written.append((between - began) * 256 / (end - start))
            read.append((time.perf_counter() - between) * 256 / (end - start))
            size, count = size + len(data), count + end - start
        cache = DynamicCache()
        for layer in range(len(keys)):
            cache.update(keys[layer][None], values[layer][None], layer)
        rest = one.prompt[one.spans[-1][1] :]
        logits = loaded.model(torch.tensor([rest + one.answer[:-1]]), past_key_values=cache).logits[0, len(rest) - 1 :]
        found = logits.log_softmax(-1)
        divergences.append((one.exact.exp() * (one.exact - found)).sum(-1))
        agree = found.argmax(-1) == one.exact.argmax(-1)
        agreements.append(agree)
        sure.append(agree[one.exact.amax(-1).exp() >= 0.5])
    return {
        "bytes/token": size / count,
        "KL": float(torch.cat(divergences).mean()),
        "top-1": float(torch.cat(agreements).float().mean()),
        "top-1 sure": float(torch.cat(sure).float().mean()),
        "encode s": statistics.median(written),
        "decode s": statistics.median(read),
    }


def at_equal(rows: Sequence[Row], name: str, divergence: float) -> float | None:
    """Bytes a token of the codec `name` at a KL divergence, between its levels; None where they do not reach it."""
    points = sorted(
        (math.log(float(row["KL"] or 0)), float(row["bytes/token"] or 0)) for row in rows if row["name"] == name
    )
    for (low, more), (high, fewer) in pairwise(points):
        if low <= math.log(divergence) <= high:
            return more + (fewer - more) * (math.log(divergence) - low) / (high - low)
    return None


def measure(options: Options) -> Result:
    torch.set_num_threads(options.extra.threads)
    each, held = (1, 2) if options.quick else (options.extra.questions, 8)
    loaded = load("embedded", cache=Settings().cache, device="cpu", dtype="float32")
    every = [prompts(loaded, options.data / f"{name}.json.gz", held + each, 1) for name in ("nq_passages", "musique")]
    asked = [ask(loaded, *one) for some in every for one in some[held:]]
    before = [ask(loaded, *one) for some in every for one in some[:held]]
    rotations = [Rotation(_frequencies(loaded.model))] * len(asked[0].keys)
    sensitivity = _sensitivity(loaded, rotations, before, options.extra.sensitivity)
    ladder = fit([one.kv for one in before], rotations, sensitivity)
    plain = [(spec.split("(")[0], spec, make(spec, rotations=rotations)) for spec in FIXED + CACHEGEN]
    measured = [
        (spec.split("(")[0], spec, make(spec, rotations=rotations, sensitivity=sensitivity, ladder=ladder))
        for spec in FISHER + LADDER
    ]
    apart = [
        (f"fisher {how}", f"{spec} {how}", codec)
        for spec in FISHER[1:4]
        for how, codec in (("unmeasured", make(spec, rotations=rotations)), ("unmeasured, as turned", make(spec)))
    ]
    specs: list[tuple[str, str, Codec]] = [*plain, *measured, *([] if options.quick else apart)]
    rows = []
    for name, label, codec in specs:
        rows.append({"codec": label, "name": name, **fidelity(loaded, asked, codec, ladder)})
    return _judged(rows, len(asked), _prefill(loaded, asked[0]))


def _judged(rows: list[dict[str, Any]], count: int, prefill: float) -> Result:
    eight = next(row["bytes/token"] for row in rows if row["name"] == "int8")
    notes = [f"{count} prompts of {PASSAGES} passages"]
    bars = []
    for divergence in EQUAL:
        sizes = {name: at_equal(rows, name, divergence) for name in dict.fromkeys(row["name"] for row in rows)}
        found = {name: size for name, size in sizes.items() if size is not None}
        each = ", ".join(f"{name} {size:.0f} (int8 / {eight / size:.2f})" for name, size in found.items())
        notes.append(f"bytes a token at KL {divergence}: {each}")
        bars += [
            at_least(f"int8 / {name}, bytes at KL {divergence}", eight / size, 3.5)
            for name, size in found.items()
            if divergence == 0.02 and name in ("cachegen", "fisher", "ladder")
        ]
    for row in rows:
        if row["codec"] in ("fisher(level=2)", "ladder(level=2)"):
            bars.append(at_least(f"{row['codec']}: top-1 agreement where sure", row["top-1 sure"], 0.99))
            bars.append(at_most(f"{row['codec']}: decode / prefill, 256 tokens", row["decode s"] / prefill, 1.0))
    return Result([{key: value for key, value in row.items() if key != "name"} for row in rows], bars, notes)


@torch.inference_mode()
def _prefill(loaded: LoadedModel, one: Asked) -> float:
    """Seconds to read 256 tokens by transformers, median of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        loaded.model(torch.tensor([(one.prompt * 2)[:256]]), use_cache=True, logits_to_keep=1)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _sensitivity(
    loaded: LoadedModel, rotations: Sequence[Rotation], before: Sequence[Asked], file: Path | None
) -> Sensitivity:
    """Measured, or read from `file` where it is there."""
    if file is not None and file.exists():
        return Sensitivity.load(file, loaded.fingerprint)
    made = measure_sensitivity(loaded, rotations, [one.reading for one in before])
    if file is not None:
        made.save(file)
    return made


def _frequencies(model: Any) -> torch.Tensor:
    found: torch.Tensor = next(b for name, b in model.named_buffers() if name.endswith("inv_freq"))
    return found.double()


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", type=int, default=8, help="of each pack")
    parser.add_argument(
        "--sensitivity", type=Path, metavar="FILE", help="take the measured sensitivity from here, or leave it here"
    )


if __name__ == "__main__":
    run("codec", measure, about="Bytes of KV and what they cost in answers.", arguments=_arguments)
