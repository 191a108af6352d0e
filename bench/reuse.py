"""Passages that were read before: how much sooner an answer begins, and how far it is from that of a full prefill.

Questions and passages are those that the adapter has never seen (`longreach.train.material.held_out`). The reference
is the same engine without reuse; its greedy answer is what the others are compared on, token by token. Everything is
measured in one process, one method after the other for each prompt:

- full: nothing is kept, the prompt is read as a whole;
- prefix: what opens the prompt is kept, as a prefix cache does it;
- postponed: reuse with repair, with nothing kept but what opens the prompt: it is read as a whole, passages later;
- miss: reuse without repair, likewise: passages are read apart now;
- pages: reuse, all passages in the pool;
- disk: reuse, all passages on the disk alone;
- naive: as pages, passages read by the model as it is, without the adapter;
- epic, gaze: as pages, and a share of the passages' tokens computed again (`longreach.kv.reuse`);
- transformers, llama.cpp: what opens the prompt is kept, as they do it (`reuse_peers.py`).

`--ways` names further ways of the engine (`longreach.engine.ways`), which are measured as naive is: those of the
literature, such as `cacheblend(share=0.15)`, among them. Then hundreds of questions on 200 chunks, of which no tier can
hold all (`reuse_steady.py`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness import ROOT as HOME
from harness import Bar, Options, Result, Row, at_least, at_most, run
from longreach.answer.rank_spans import RankSpans
from longreach.context.assemble import assemble_chat
from longreach.engine import Engine, Prompt
from longreach.engine.paged import PagedEngine
from longreach.engine.passages import Passages
from longreach.engine.requests import split
from longreach.engine.stores import CODEC
from longreach.engine.ways import ways
from longreach.evaluate.continuations import along, begun
from longreach.evaluate.metrics.answers import reference_recall
from longreach.evaluate.metrics.fidelity import agreement_where_sure, kl_divergence
from longreach.evaluate.statistics import estimate
from longreach.kv.codec import make
from longreach.kv.reuse import reuses
from longreach.kv.store.entry import Named
from longreach.kv.store.stats import StoreStats
from longreach.kv.store.store import KVStore
from longreach.model.adapters import adapter_for
from longreach.model.identity import kv_fingerprint
from reuse_cases import LONGEST, Case, cases, hashed
from reuse_figure import Point, write_png
from reuse_peers import Peer, peers
from reuse_steady import CHUNKS, DEVICE, DISK, HOST, QUESTIONS, Hundred, steady

METHODS = ("full", "prefix", "postponed", "miss", "pages", "disk")
REPAIRS = ("epic(share=0.2)", "gaze(share=0.15)", "gaze(share=0.3)")
"""The first is the default of the embedded model."""
CLAIMED = REPAIRS[:2]
"""Of which the bars are asked."""
NEAR = ("pages", "naive", *REPAIRS)
"""Methods that lose something."""
EXACT = ("full", "prefix", "postponed", "transformers", "llama.cpp")
"""Methods that lose nothing."""
FIGURE = HOME / "bench" / "results" / "reuse.png"


@dataclass
class Loss:
    """What differs from the reference, token by token of its answers, and of the answers the recall that is lost."""

    kl: list[float] = field(default_factory=list)
    sure: list[bool] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)


@dataclass
class Found:
    """What was measured of one kind of prompt: seconds to the first token by method, and what is lost by it."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: dict[str, Loss] = field(default_factory=lambda: defaultdict(Loss))
    recall: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    page_bytes: list[int] = field(default_factory=list)
    disk_bytes: list[int] = field(default_factory=list)


def measure(options: Options) -> Result:
    count, kinds = (1, [("nq_passages", 8)]) if options.quick else (options.extra.cases, KINDS)
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as folder:
        exact, apart, naive = _engine(), _engine(), _engine()
        _keep(apart, Path(folder) / "adapter")
        _keep(naive, Path(folder) / "naive", adapted=False)
        assert apart.passages is not None
        for engine in (exact, apart, naive):
            engine.quicken()
        kept = _by_way(naive, options.extra.ways, Path(folder))
        others = peers(options.extra.gguf)
        for pack, passages in kinds:
            for form in ("examples", "chat"):
                name = f"{pack}, {passages} passages, {form}"
                found[name] = Found()
                for case in cases(options.data, pack, passages, count, exact):
                    _measure(case, form, exact, apart, naive, kept, others, found[name], options.extra.answer)
                print(name, _row(name, found[name]), flush=True)
        apart.passages.store.close()
        del naive, kept
        lasting, held = _steady(options, exact, Path(folder) / "steady") if options.extra.questions else ({}, None)
    rows = [_row(name, of) for name, of in found.items()]
    more = {
        "what is lost": [_losses(method, list(found.values())) for method in (*NEAR, *options.extra.ways)],
        "others, and bytes": [_others(name, of) for name, of in found.items()],
        "steady state": [_lasting(name, of) for name, of in lasting.items()],
    }
    notes = [
        f"{count} prompts a row; KL in nats over the tokens of the reference's greedy answer, with 95 % intervals",
    ]
    if held is not None:
        notes.append(
            f"steady: device, host and disk may hold {DEVICE:.1%}, {HOST:.1%} and {DISK:.0%} of all chunks; at the end "
            f"they hold {held.device.entries}, {held.host.entries} and {held.disk.entries} entries, and "
            f"{held.device.evicted}, {held.host.evicted} and {held.disk.evicted} had gone"
        )
    if not options.quick:
        write_png(options.extra.figure, _points(found))
    return Result(rows, _bars(found, lasting), notes, more)


KINDS = [("nq_passages", 8), ("nq_passages", 16), ("musique", 8), ("musique", 16)]


def _engine(kv_bytes: int | None = None) -> PagedEngine:
    """The embedded model, keeping no passages."""
    engine = Engine.load("embedded", reuse="off", kv_bytes=kv_bytes)
    assert isinstance(engine, PagedEngine)
    return engine


def _keep(engine: PagedEngine, folder: Path, adapted: bool = True) -> None:
    """Let it keep passages, in pages and on disk, and not in host memory."""
    engine.keep_passages(_store(engine, folder), adapter_for(engine.loaded.model) if adapted else None)


def _store(engine: PagedEngine, folder: Path) -> KVStore:
    name = kv_fingerprint(engine.loaded, str(engine.pool.keys.dtype))
    return KVStore.open(folder, fingerprint=name, codec=Named(CODEC, make(CODEC)), host_bytes=0, disk_bytes=1 << 34)


def _by_way(engine: PagedEngine, specs: Sequence[str], folder: Path) -> dict[str, Passages]:
    """What `engine` keeps in each of these ways, one of which it can go at a time; it goes the one that it went."""
    before, kept = engine.passages, {}
    for number, spec in enumerate(specs):
        engine.passages = None
        ways.make(spec).begin(engine, partial(_store, engine, folder / f"way-{number}"))
        assert engine.passages is not None, f"{spec} keeps no passages"
        engine.passages.postpone(False)
        kept[spec] = engine.passages
    engine.passages = before
    return kept


def _steady(options: Options, exact: PagedEngine, folder: Path) -> tuple[dict[str, Hundred], StoreStats]:
    """Hundreds of questions, in five parts of a row each."""
    held = json.loads(gzip.decompress((options.data / "nq_passages.json.gz").read_bytes()))
    chunks, questions = (12, 10) if options.quick else (CHUNKS, options.extra.questions)
    texts = [
        exact.decode(exact.tokenize(held["docs"][at])[:LONGEST]) for at in sorted(held["docs"], key=hashed)[:chunks]
    ]
    asked = [held["queries"][at] for at in sorted(held["queries"], key=hashed)]
    parts, stats = steady(_engine, exact, texts, asked, folder, questions)
    size = questions // len(parts)
    return {f"questions {size * at + 1} to {size * (at + 1)}": part for at, part in enumerate(parts)}, stats


def _others(name: str, found: Found) -> Row:
    """What others take, who know what opens the prompt, and what a prompt's passages take, with what opens it."""
    full = statistics.median(found.seconds["full"])
    return {
        "prompts": name,
        "full, s": round(full, 3),
        **{
            f"{other}, times": round(full / statistics.median(found.seconds[other]), 2)
            for other in ("prefix", "transformers", "llama.cpp")
            if other in found.seconds
        },
        "pages, MB": round(statistics.median(found.page_bytes) / 1e6, 1),
        "disk, MB": round(statistics.median(found.disk_bytes) / 1e6, 1),
    }


def _lasting(name: str, part: Hundred) -> Row:
    return {
        "prompts": name,
        "tokens": round(statistics.median(part.tokens)),
        "full, s": round(statistics.median(part.full) * statistics.median(part.tokens), 3),
        "mixed, times": round(part.gain, 2),
        "reused": round(sum(part.reused) / sum(part.tokens), 3),
    }


def _points(found: dict[str, Found]) -> list[Point]:
    points = []
    for name, of in found.items():
        for method, seconds in of.seconds.items():
            share = statistics.median(a / b for a, b in zip(seconds, of.seconds["full"], strict=True))
            kl = [] if method in EXACT else of.lost["pages" if method in METHODS else method].kl
            points.append(Point(name, method, share, statistics.mean(kl) if kl else 0.0))
    return points


def _measure(
    case: Case,
    form: str,
    exact: PagedEngine,
    apart: PagedEngine,
    naive: PagedEngine,
    kept: Mapping[str, Passages],
    others: Mapping[str, Peer],
    found: Found,
    answer: int,
) -> None:
    """One prompt by every method."""

    def prompt(passages: Sequence[str], engine: Engine) -> Prompt:
        """The same tokens for both: a text that is cut where passages begin can be other tokens than the whole."""
        asked = assemble_chat(case.question, passages) if form == "chat" else None
        return apart.parts(asked or RankSpans().prompt(case.question, passages, engine))

    assert apart.passages is not None
    store = apart.passages.store
    opening = prompt(["."], apart)  # has what opens the prompt read, and one passage that is none of the others
    exact.forget()
    seconds, wanted = first(exact, prompt(case.passages, exact), answer)
    found.seconds["full"].append(seconds)
    exact.forget()
    first(exact, prompt(["."], exact), 1)
    found.seconds["prefix"].append(first(exact, prompt(case.passages, exact), 1)[0])
    apart.forget()
    first(apart, opening, 1)
    store.flush()
    apart.passages.postpone()
    found.seconds["postponed"].append(first(apart, prompt(case.passages, apart), 1)[0])
    apart.passages.postpone(False)
    apart.forget()
    first(apart, opening, 1)
    store.flush()
    found.seconds["miss"].append(first(apart, prompt(case.passages, apart), 1)[0])
    store.flush()
    stats = store.stats()
    found.page_bytes.append(stats.device.bytes)
    found.disk_bytes.append(stats.disk.bytes)
    seconds, told = first(apart, prompt(case.passages, apart), answer)
    found.seconds["pages"].append(seconds)
    store.evict(len(apart.pool))
    first(apart, opening, 1)
    found.seconds["disk"].append(first(apart, prompt(case.passages, apart), 1)[0])
    opened, _ = split(apart.parts(prompt(case.passages, apart)))
    rest = apart.encode(prompt(case.passages, apart))[len(opened) :]
    for name, peer in others.items():
        found.seconds[name].append(peer(opened, rest))
    found.tokens.append(len(apart.encode(prompt(case.passages, apart))))
    log_p = along(exact, prompt(case.passages, exact), wanted)

    def lose(method: str, engine: PagedEngine, told: list[int]) -> None:
        log_q = along(engine, prompt(case.passages, engine), wanted)
        lost = found.lost[method]
        lost.kl += kl_divergence(log_p, log_q).tolist()
        lost.sure += agreement_where_sure(log_p, log_q).tolist()
        if case.answers:
            recalls = (reference_recall(exact.decode(ids), case.answers) for ids in (wanted, told))
            lost.recall.append(next(recalls) - next(recalls))

    if case.answers:
        found.recall.append(reference_recall(exact.decode(wanted), case.answers))
    lose("pages", apart, told)
    for method in REPAIRS:
        apart.passages.repair_by(reuses.make(method))
        seconds, told = first(apart, prompt(case.passages, apart), answer)
        found.seconds[method].append(seconds)
        lose(method, apart, told)
    apart.passages.repair_by(None)
    first(naive, prompt(case.passages, naive), 1)
    seconds, told = first(naive, prompt(case.passages, naive), answer)
    found.seconds["naive"].append(seconds)
    lose("naive", naive, told)
    before = naive.passages
    for way, passages in kept.items():
        naive.passages = passages
        first(naive, prompt(case.passages, naive), 1)
        seconds, told = first(naive, prompt(case.passages, naive), answer)
        found.seconds[way].append(seconds)
        lose(way, naive, told)
    naive.passages = before


def first(engine: PagedEngine, prompt: Prompt, tokens: int) -> tuple[float, list[int]]:
    """Seconds to the first token of the greedy answer, and its tokens."""
    seconds, answer = begun(engine, prompt, tokens)
    return seconds, list(answer.token_ids)


def _row(name: str, found: Found) -> Row:
    full = found.seconds["full"]
    times = {
        f"{method}, times": round(statistics.median(a / b for a, b in zip(full, found.seconds[method], strict=True)), 2)
        for method in METHODS[1:]
    }
    lost = found.lost["pages"]
    kl = estimate(lost.kl)
    return {
        "prompts": name,
        "tokens": round(statistics.median(found.tokens)),
        "full, s": round(statistics.median(full), 3),
        **times,
        "miss over prefix": round(_over(found, "miss", "prefix"), 3),
        "KL": round(kl.mean, 4),
        "to": round(kl.high, 4),
        "sure": len(lost.sure),
        "agree": round(statistics.mean(lost.sure), 4) if lost.sure else None,
        "recall": round(statistics.mean(found.recall), 3) if found.recall else None,
    }


def _losses(method: str, found: Sequence[Found]) -> Row:
    """A method over all kinds of prompts."""
    kl, sure, recall = (
        [value for of in found for value in getattr(of.lost[method], name)] for name in ("kl", "sure", "recall")
    )
    divergence = estimate(kl)
    return {
        "method": method,
        "times": round(_times(found, method), 2),
        "KL": round(divergence.mean, 4),
        "from": round(divergence.low, 4),
        "to": round(divergence.high, 4),
        "sure": len(sure),
        "agree": round(statistics.mean(sure), 4),
        "recall lost": round(statistics.mean(recall), 3),
        "lost at least": round(estimate(recall).low, 3),
    }


def _times(found: Sequence[Found], method: str) -> float:
    """As soon as the full prefill, in the middle."""
    return statistics.median(a / b for of in found for a, b in zip(of.seconds["full"], of.seconds[method], strict=True))


def _over(found: Found, one: str, other: str) -> float:
    """The seconds of a method in those of another, in the middle."""
    return statistics.median(a / b for a, b in zip(found.seconds[one], found.seconds[other], strict=True))


def _bars(found: dict[str, Found], lasting: dict[str, Hundred]) -> list[Bar]:
    every = list(found.values())
    bars = []
    for method in CLAIMED:
        row = _losses(method, every)
        bars += [
            at_most(f"{method}: mean KL to the full prefill", float(str(row["KL"])), 0.05),
            at_least(f"{method}: same first choice where the full prefill is sure", float(str(row["agree"])), 0.99),
            at_least(f"{method}: times as soon as the full prefill", float(str(row["times"])), 2.2),
            at_most(f"{method}: answer recall lost, low end of the interval", float(str(row["lost at least"])), 0.0),
        ]
    for method, bar in (("disk", 2.2), ("postponed", 0.97), ("miss", 0.97)):
        bars.append(at_least(f"{method}: times as soon as the full prefill", round(_times(every, method), 3), bar))
    if parts := list(lasting.values()):
        kept = parts[-1].gain / parts[0].gain
        bars.append(at_least("steady state: the gain of the last fifth, of that of the first", round(kept, 3), 0.9))
    over = statistics.median(
        a / b for of in every for a, b in zip(of.seconds["postponed"], of.seconds["prefix"], strict=True)
    )
    bars.append(at_most("postponed: seconds, of those with a prefix cache", round(over, 3), 1.03))
    return bars


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=20, help="prompts of each kind")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of the steady state; 0 leaves it out")
    parser.add_argument("--ways", nargs="+", default=[], metavar="SPEC", help="ways of the engine to measure as well")
    parser.add_argument("--gguf", type=Path, help="the GGUF file of the embedded model, for llama.cpp")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="the picture that a full run writes")
    parser.add_argument("--answer", type=int, default=24, help="tokens of the reference's answer")


if __name__ == "__main__":
    run("reuse", measure, about=__doc__ or "", arguments=arguments)
