"""Codecs: bytes of a token's KV, and what they cost in answers.

Prompts of passages of nq_passages and musique, each with its question; the embedded model reads and answers them in
float32, once. Then the KV of each passage is encoded by every codec, decoded and put back, and the exact answer is read
again behind it, several codecs in one pass: KL divergence and agreement of its tokens. Some codecs answer by themselves
too: how much of the wanted answer stands in theirs. `fisher` and `ladder` follow what was measured on other prompts of
the same packs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness import Options, Result, Row, at_least, at_most, run
from longreach.config import Settings
from longreach.evaluate.codecs.case import ANSWER, Case, read
from longreach.evaluate.codecs.cost import Cost, add_case
from longreach.evaluate.codecs.fit import fit_profile
from longreach.evaluate.metrics.answers import reference_recall
from longreach.evaluate.statistics import compare, estimate
from longreach.kv.codec import Profile
from longreach.model.bridge import Bridge
from longreach.model.load import LoadedModel, load
from longreach.model.sensitivity import plain_attention

PASSAGES, LONGEST = 4, 256
PACKS = ("nq_passages", "musique")
BASE = "int8(group=64)"
PLAIN = [BASE, "int4(group=32)", "cachegen(level=0)", "cachegen(level=1)"]
FITTED = [f"{name}(level={level})" for name in ("fisher", "ladder") for level in (1, 2)]
ANSWERED = [BASE, "cachegen(level=0)", "fisher(level=2)", "ladder(level=2)"]
"""Codecs that answer by themselves, beside the exact run."""
JUDGED = ["fisher(level=2)", "ladder(level=2)"]
"""Codecs of the family of CacheGen that the bars are for."""
SMALLER, KL, SURE = 3.5, 0.05, 0.99
"""So many times smaller than 8 bits, within what the reuse of KV may cost by default."""
EQUAL = (0.005, 0.02, 0.05)
"""Mean KL divergences at which sizes are compared."""


@dataclass(frozen=True)
class Asked:
    """A prompt whose tokens `spans` are passages, and the answers that are wanted."""

    prompt: list[int]
    spans: list[tuple[int, int]]
    wanted: list[str]


def prompts(loaded: LoadedModel, pack: Path, count: int, seed: int) -> list[Asked]:
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
        wanted = content["answers"][query]
        made.append(Asked(prompt, spans, [wanted] if isinstance(wanted, str) else list(wanted)))
    return made


def at_equal(rows: Sequence[Row], name: str, divergence: float) -> float | None:
    """Bytes a token of the codec `name` at a KL divergence, between its levels; None where they do not reach it."""
    points = sorted(
        (math.log(max(1e-12, float(row["KL"] or 0))), float(row["bytes/token"] or 0))
        for row in rows
        if _name(row) == name
    )
    for (low, more), (high, fewer) in pairwise(points):
        if low <= math.log(divergence) <= high:
            return more + (fewer - more) * (math.log(divergence) - low) / (high - low)
    return None


def measure(options: Options) -> Result:
    torch.set_num_threads(options.extra.threads)
    began = time.perf_counter()
    each, held = (1, 2) if options.quick else (options.extra.questions, 8)
    loaded = load("embedded", cache=Settings().cache, device="cpu", dtype="float32")
    packs = [prompts(loaded, options.data / f"{name}.json.gz", held + each, 1) for name in PACKS]
    before = [read(loaded, one.prompt, one.spans) for some in packs for one in some[:held]]
    asked = [one for both in zip(*(some[held:] for some in packs), strict=True) for one in both]
    with TemporaryDirectory() as folder:
        file = options.extra.profile or Path(folder) / "profile"
        profile = _profile(loaded, before, file, repeats=1 if options.quick else 2)
        size = file.stat().st_size
    codecs = {spec: profile.make(spec) for spec in (*PLAIN, *FITTED)}
    costs = {spec: Cost() for spec in codecs}
    exact: list[list[int]] = []
    prefill: list[float] = []
    for one in asked:
        if time.perf_counter() - began > 60 * options.extra.minutes:
            break
        case = read(loaded, one.prompt, one.spans)
        exact.append(case.answer)
        add_case(loaded, case, codecs, costs, [] if options.quick else ANSWERED)
        prefill.append(_prefill(loaded, case))
    asked = asked[: len(exact)]
    recalls = {spec: _recalls(loaded, asked, costs[spec].answers) for spec in ANSWERED if costs[spec].answers}
    rows = [_row(spec, cost, recalls.get(spec)) for spec, cost in costs.items()]
    notes = [
        f"{len(asked)} prompts of {PASSAGES} passages, up to {ANSWER} tokens of answer each",
        f"the profile takes {size:,} bytes",
        f"answer recall of the exact run: {estimate([*_recalls(loaded, asked, exact).values()])}",
    ]
    return _judged(rows, costs, recalls, prefill, notes)


def _row(spec: str, cost: Cost, recalls: Mapping[str, float] | None) -> dict[str, Any]:
    kl = estimate(cost.kl)
    per = 256 / sum(cost.tokens)
    return {
        "codec": spec,
        "bytes/token": round(cost.bytes_per_token, 1),
        "KL": kl.mean,
        "KL to": kl.high,
        "top-1": statistics.mean(cost.agreed),
        "top-1 sure": statistics.mean(cost.sure),
        "recall": None if recalls is None else statistics.mean(recalls.values()),
        "encode s": round(sum(cost.encoding) * per, 4),
        "decode s": round(sum(cost.decoding) * per, 4),
    }


def _judged(
    rows: list[dict[str, Any]],
    costs: Mapping[str, Cost],
    recalls: Mapping[str, Mapping[str, float]],
    prefill: Sequence[float],
    notes: list[str],
) -> Result:
    eight = costs[BASE].bytes_per_token
    for divergence in EQUAL:
        sizes = {name: at_equal(rows, name, divergence) for name in dict.fromkeys(map(_name, rows))}
        found = {name: size for name, size in sizes.items() if size is not None}
        each = ", ".join(f"{name} {size:.0f} (int8 / {eight / size:.2f})" for name, size in found.items())
        notes.append(f"bytes a token at KL {divergence}: {each or 'none'}")
    bars = []
    for spec in JUDGED:
        row = next(row for row in rows if row["codec"] == spec)
        bars.append(at_least(f"int8 / {spec}, bytes", eight / row["bytes/token"], SMALLER))
        bars.append(at_most(f"{spec}: mean KL", row["KL"], KL))
        bars.append(at_least(f"{spec}: top-1 agreement where sure", row["top-1 sure"], SURE))
        bars.append(at_most(f"{spec}: decode / prefill, 256 tokens", row["decode s"] / statistics.median(prefill), 1.0))
        if recalls:
            apart = compare(recalls[BASE], recalls[spec])
            notes.append(f"answer recall of {spec} less int8's: {apart.difference}, p = {apart.p:.2f}")
            bars.append(at_least(f"{spec}: answer recall less int8's, upper end", apart.difference.high, 0.0))
    return Result(rows, bars, notes)


def _recalls(loaded: LoadedModel, asked: Sequence[Asked], answers: Sequence[list[int]]) -> dict[str, float]:
    """How much of the wanted answer stands in each answer, by the number of the prompt."""
    found = [str(loaded.tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
    return {
        str(at): reference_recall(text, one.wanted) for at, (text, one) in enumerate(zip(found, asked, strict=True))
    }


@torch.inference_mode()
def _prefill(loaded: LoadedModel, case: Case) -> float:
    """Seconds to read 256 tokens by transformers."""
    with plain_attention(loaded.model):
        began = time.perf_counter()
        loaded.model(torch.tensor([(case.prompt * 2)[:256]]), use_cache=True, logits_to_keep=1)
        return time.perf_counter() - began


def _profile(loaded: LoadedModel, before: Sequence[Case], file: Path, repeats: int) -> Profile:
    """Fitted, and as it is read back; or read from `file` where it is there."""
    if not file.exists():
        fit_profile(loaded, Bridge(loaded.model).rotations, before, loaded.fingerprint, repeats).save(file)
    return Profile.load(file, loaded.fingerprint)


def _name(row: Row) -> str:
    return str(row["codec"]).split("(")[0]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", type=int, default=12, help="of each pack")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin with no prompt after so many")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="take the profile from here, or leave it here")


if __name__ == "__main__":
    run("codec", measure, about="Bytes of KV and what they cost in answers.", arguments=_arguments)
