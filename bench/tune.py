"""Does tuning find what a whole grid would, for a part of the answers?

Every configuration of a grid answers all questions of a pack. Then `tune` goes over the same answers, as it would have
gone had it been alone, and its choice is held against the best of the grid.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

from harness import Options, Result, Row, at_least, at_most, run
from longreach.cli.eval_parts import AXES, Parts
from longreach.cli.tune import GRID
from longreach.config import load_settings
from longreach.evaluate.grid import parse_grid
from longreach.evaluate.results import Results
from longreach.evaluate.statistics import compare
from longreach.evaluate.sweep import Arm, sweep
from longreach.evaluate.tune import Limits, choose, first_round

QUICK = "k=4,8; chooser=top_k(k=1),top_k(k=4)"
COST = 0.25


def measure(options: Options) -> Result:
    packs = options.extra.packs[:1] if options.quick else options.extra.packs
    with tempfile.TemporaryDirectory() as folder:
        kept = options.extra.keep or Path(folder)
        found = [row(cut(pack, options, Path(folder)), pack, options, kept) for pack in packs]
    bars = []
    for each in found:
        pack = each["pack"]
        # The grid's best had the luck of the draw as well: what counts is whether it is surely better.
        bars.append(at_most(f"{pack}: what the grid's best is surely better by", float(each["surely_lost"] or 0), 0.0))
        if not options.quick:
            bars.append(at_most(f"{pack}: share of the grid's answers", float(each["cost"] or 0), COST))
        bars.append(at_least(f"{pack}: the choice keeps the limits", float(each["kept"] or 0), 1.0))
    return Result(found, bars, [f"grid: {QUICK if options.quick else options.extra.grid}"])


def row(spec: str, pack: str, options: Options, folder: Path) -> Row:
    """One pack: the whole grid, then tuning on its answers."""
    grid = parse_grid(QUICK if options.quick else options.extra.grid, AXES)
    limit = 8 if options.quick else options.extra.questions
    parts = Parts(load_settings(model=options.extra.model, answer=options.extra.answer), "text", "", "")
    limits = Limits(options.extra.ttft)
    with Results(folder / f"{pack}.jsonl") as results:
        try:
            task = parts.task(spec)
            points = grid.points()
            sources = parts.sources(task, points)
            whole, tuned = ([Arm(*pair) for pair in zip(points, sources, strict=True)] for _ in range(2))
            examples = min(limit, len(task))
            sweep(task, whole, results, limit=limit)
            first = first_round(len(points), examples)
            sweep(task, tuned, results, limit=limit, rule=limits.better_half, first=first)
        finally:
            parts.close()
    within = [arm for arm in whole if limits.excess(arm) <= 1]
    best = max(within, key=lambda arm: sum(arm.scores.values()))
    choice = choose(tuned, limits, examples)
    lost = compare(choice.arm.scores, best.scores)
    return {
        "pack": pack,
        "choice": choice.arm.name,
        "score": round(choice.score.mean, 3),
        "best_of_grid": best.name,
        "best": round(lost.second, 3),
        "lost": round(lost.difference.mean, 3),
        "surely_lost": round(max(0.0, lost.difference.low), 3),
        "cost": round(choice.cost, 3),
        "sure": round(choice.sure, 3),
        "kept": float(limits.excess(choice.arm) <= 1),
        "questions": examples,
        "arms": len(whole),
    }


def cut(pack: str, options: Options, folder: Path) -> str:
    """The task over a pack; in a quick run over the few documents that its first questions need, and some more."""
    if not options.quick:
        return f"corpus_qa(pack={pack})"
    with gzip.open(options.data / f"{pack}.json.gz", "rt", encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    asked = [query for query in content["queries"] if content["answers"].get(query)][:8]
    wanted = {doc for query in asked for doc in content["qrels"][query]} | set(list(content["docs"])[:100])
    small = {
        "docs": {doc: content["docs"][doc] for doc in content["docs"] if doc in wanted},
        **{part: {query: content[part][query] for query in asked} for part in ("queries", "qrels", "answers")},
    }
    file_of = folder / f"{pack}-few.json"
    file_of.write_text(json.dumps(small), encoding="utf-8")
    return f"corpus_qa(pack={str(file_of)!r})"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--packs", nargs="+", default=["nq_passages", "musique"])
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--grid", default=GRID)
    parser.add_argument("--ttft", type=float, help="the limit, in seconds to the first token")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--answer", help="a spec; without it what suits the model")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the answers here, and go on from there")


if __name__ == "__main__":
    run("tune", measure, about=(__doc__ or "").splitlines()[0], arguments=arguments)
