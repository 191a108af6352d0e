"""Whether the engine's ways of reuse are what `repair.py` measures: the same prompts by both, token by token.

`repair_desk.py` computes every method over entries that lie in one tensor, by a Llama of its own; the engine over
pages, by the model as transformers has it. Both in float32, passages read by the model as it is. What stands between
passages is taken as a part of the one behind it, since the engine keeps all of a prompt's middle.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from blockwise import Net
from harness import Bar, Options, Result, Row, at_most, run
from longreach.config import Settings
from longreach.engine import ROOT, Part
from longreach.engine.paged import PagedEngine
from longreach.kv.codec import make
from longreach.kv.reuse import Reuse, reuses
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.load import LoadedModel, load
from repair_cases import Case, cases
from repair_desk import Desk
from repair_prompt import Prompt

NEAR = 1e-4
"""Nats by which the KL at a token may differ."""
SPECS = (
    "naive",
    "epic(share=0.15)",
    "cacheblend(share=0.15)",
    "cacheblend(share=0.3)",
    "cache_craft(share=0.15)",
    "ape",
)


def measure(options: Options) -> Result:
    torch.set_grad_enabled(False)
    loaded = load(options.extra.model, cache=Settings().cache, device="cpu", dtype="float32")
    desk = Desk(Net(loaded.model), loaded.tokenizer, loaded.end_tokens)
    count, passages = (1, 4) if options.quick else (options.extra.cases, options.extra.passages)
    found = cases(options.data, "musique", passages, count, loaded.tokenizer, part="dev")
    prompts = [desk.lay(_joined(case)) for case in found]
    rows: list[Row] = []
    for spec in SPECS:
        method = reuses.make(spec)
        own = torch.cat([desk.follow(prompt, method).kl for prompt in prompts])
        with tempfile.TemporaryDirectory() as folder:
            engine = _engine(loaded, method, desk, Path(folder))
            other = torch.cat([_kl(engine, prompt) for prompt in prompts])
        rows.append(
            {
                "method": spec,
                "tokens": len(own),
                "KL, desk": round(float(own.mean()), 6),
                "KL, engine": round(float(other.mean()), 6),
                "apart at most": float(f"{float((own - other).abs().max()):.1e}"),
            }
        )
    return Result(rows, _bars(rows), [f"{len(prompts)} prompts of {passages} passages"])


def _joined(case: Case) -> Case:
    """Nothing between passages: each begins with what stood before it."""
    chunks = [joint + chunk for joint, chunk in zip(case.joints, case.chunks, strict=True)]
    return Case(case.name, case.prefix, [[] for _ in chunks], chunks, case.tail, case.answers)


def _engine(loaded: LoadedModel, method: Reuse, desk: Desk, folder: Path) -> PagedEngine:
    """An engine that reuses by `method`, its passages read as it wants them."""
    engine = PagedEngine(loaded, kv_bytes=1 << 30, kv_dtype=torch.float32)
    codec = Named("raw", make("raw"))
    engine.keep_passages(KVStore.open(folder, fingerprint="", codec=codec, host_bytes=1 << 28, disk_bytes=1 << 30))
    assert engine.passages is not None
    if method.notes:
        engine.passages.read_behind(desk.filler())
    engine.passages.repair_by(method)
    return engine


def _kl(engine: PagedEngine, prompt: Prompt) -> torch.Tensor:
    """The KL of the engine to the full prefill before each token of the prompt's answer."""
    case = prompt.case
    passages = [Part(tuple(chunk), passage=True) for chunk in case.chunks]
    found = engine.explore([Part(tuple(case.prefix)), *passages, Part(tuple(case.tail))])
    path = [(number - 1 if number else ROOT, token) for number, token in enumerate(prompt.answer.tolist()[:-1])]
    told = torch.cat([found.root[None], found.expand(path)[1]])
    return (prompt.exact.exp() * (prompt.exact - told)).sum(-1)


def _bars(rows: list[Row]) -> list[Bar]:
    return [
        at_most(f"{row['method']}: KL of desk and engine apart", float(str(row["apart at most"])), NEAR) for row in rows
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=4, help="prompts")
    parser.add_argument("--passages", type=int, default=8, help="of each prompt")
    parser.add_argument("--model", default="embedded", help="a Llama")


if __name__ == "__main__":
    run("repair_engine", measure, about=__doc__ or "", arguments=arguments)
