"""What routing by content saves: the same prompts sent to that of two replicas which has read most of them before, and
sent to any. Tokens are counted, not times.

`passages`: questions on 120 passages, four of one of 24 subjects each, subjects drawn by Zipf's law; a replica has room
for half of all passages, and reads them apart. `talks`: chats of six turns, each turn behind all before it, where what
prompts begin with is reused. Several clients ask at once, so that the router has to weigh what a replica holds against
how busy it is. The model is the tests' (260,032 parameters): which tokens are reused is not the model's doing.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from harness import Options, Result, Row, at_least, at_most, run
from longreach.engine import Engine, Part, Prompt, Sampling
from longreach.evaluate.data import read_json

REPLICAS, CLIENTS = 2, 4
SUBJECTS, EACH, ASKED, PASSAGE_TOKENS = 24, 5, 4, 72
TURNS, TURN_TOKENS = 6, 60
OPENING_TOKENS = 32
"""Tokens of what opens every prompt."""

Policy = Literal["chunks", "random"]


def make_engine(model: str, kept: bool, tokens: int) -> Engine:
    """An engine that has room for `tokens` besides those of a few prompts, and, where passages are `kept`, no other
    place for them."""
    from longreach.engine.paged import PagedEngine
    from longreach.engine.stores import CODEC
    from longreach.kv.codec import make
    from longreach.kv.store.entry import Named
    from longreach.kv.store.store import KVStore

    plain = Engine.load(model, device="cpu", dtype="float32", reuse="off")
    assert isinstance(plain, PagedEngine)
    engine = PagedEngine(plain.loaded, kv_bytes=plain.kv_bytes_of(2 * tokens))
    if kept:
        folder = Path(tempfile.gettempdir()) / f"longreach-routing-{os.getpid()}"
        codec = Named(CODEC, make(CODEC))
        engine.keep_passages(KVStore.open(folder, fingerprint="routing", codec=codec, host_bytes=0, disk_bytes=0))
    return engine


def questions(texts: Sequence[Sequence[int]], count: int, chance: random.Random) -> list[list[Prompt]]:
    """Prompts of `count` questions, one by one."""
    weights = [1 / (rank + 1) for rank in range(SUBJECTS)]
    opening, passages = texts[0][:OPENING_TOKENS], [text[:PASSAGE_TOKENS] for text in texts[1:]]
    asked: list[list[Prompt]] = []
    for number in range(count):
        subject = chance.choices(range(SUBJECTS), weights)[0]
        chosen = chance.sample(passages[subject * EACH : (subject + 1) * EACH], ASKED)
        question = texts[-1 - number % 8][:16]
        prompt = [Part(tuple(opening)), *(Part(tuple(text), passage=True) for text in chosen), Part(tuple(question))]
        asked.append([prompt])
    return asked


def talks(texts: Sequence[Sequence[int]], count: int, chance: random.Random) -> list[list[Prompt]]:
    """Prompts of `count` talks; those of one talk must be asked in turn."""
    asked: list[list[Prompt]] = []
    for _ in range(count):
        said = [token for text in chance.sample(list(texts), TURNS) for token in text[:TURN_TOKENS]]
        asked.append([[Part(tuple(said[: turn * TURN_TOKENS]))] for turn in range(1, TURNS + 1)])
    return asked


def ask(engine_maker: Callable[[], Engine], asked: list[list[Prompt]], policy: Policy) -> dict[str, float]:
    """Tokens of all prompts, those reused, and the share of the tasks that the busier replica had."""
    from longreach.serve.replicas.engine import ReplicatedEngine
    from longreach.serve.replicas.start import start_replicas

    with tempfile.TemporaryDirectory() as folder:
        replicas = start_replicas(engine_maker, REPLICAS, Path(folder), gpus="leave", policy=policy)
        try:
            engine = ReplicatedEngine(replicas)

            def follow(prompts: list[Prompt]) -> tuple[int, int]:
                told = [engine.start(prompt, Sampling(max_tokens=4)).finish().usage for prompt in prompts]
                return sum(usage.prompt_tokens for usage in told), sum(usage.reused_tokens for usage in told)

            with ThreadPoolExecutor(CLIENTS) as clients:
                told = list(clients.map(follow, asked))
            tasks = [values[""] for gauges in replicas.each() for name, _, _, values in gauges if name == "tasks"]
        finally:
            replicas.close()
    return {
        "prompt_tokens": sum(tokens for tokens, _ in told),
        "reused_tokens": sum(reused for _, reused in told),
        "busier": max(tasks) / sum(tasks),
    }


def measure(options: Options) -> Result:
    model = Path(os.environ.get("LONGREACH_MODELS", options.data.parent / "models")) / "stories260k"
    loaded = Engine.load(str(model), device="cpu", reuse="off")
    source = read_json(options.data / "nq_passages.json.gz")["docs"].values()
    texts = [ids for ids in (loaded.tokenize(text) for text in list(source)[:400]) if len(ids) >= PASSAGE_TOKENS]
    texts = texts[: SUBJECTS * EACH + 9]
    room = OPENING_TOKENS + SUBJECTS * EACH * PASSAGE_TOKENS // 2
    work: dict[str, tuple[Callable[[], Engine], Callable[[random.Random], list[list[Prompt]]]]] = {
        "passages": (
            partial(make_engine, str(model), True, room),
            partial(questions, texts, 100 if options.quick else 600),
        ),
        "talks": (
            partial(make_engine, str(model), False, 24 * TURNS * TURN_TOKENS // 2),
            partial(talks, texts, 12 if options.quick else 72),
        ),
    }
    rows: list[Row] = []
    for name in ["passages"] if options.quick else list(work):
        for policy in ("random", "chunks"):
            maker, prompts = work[name]
            told = ask(maker, prompts(random.Random(7)), policy)  # type: ignore[arg-type]
            share = told["reused_tokens"] / told["prompt_tokens"]
            computed = told["prompt_tokens"] - told["reused_tokens"]
            rows.append({"work": name, "policy": policy, **told, "reused": share, "computed_tokens": computed})
    bars = []
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        less = float(before["computed_tokens"] or 0) / float(after["computed_tokens"] or 1)
        bars.append(at_least(f"{before['work']}: times fewer tokens read than by chance", less, 1.3))
        bars.append(at_most(f"{before['work']}: share of the busier replica", float(after["busier"] or 1), 0.7))
    return Result(rows, bars, [f"{REPLICAS} replicas, {CLIENTS} clients; every engine begins with nothing."])


if __name__ == "__main__":
    if find_spec("ray") is not None:
        run("ray_routing", measure, about="What routing by content saves.")
    else:
        print("skipped: Ray is not installed (pip install 'longreach[ray]')")
