"""Passages that come into pages layer by layer beside their repair, beside loading all of them before it.

The embedded model repairs the same prompt by turns with its passages in pages, loaded whole from the disk, and loaded
layer by layer; entries lie in the system's cache. Meant for a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch

from harness import Options, Result, Row, run
from longreach.answer.rank_spans import RankSpans
from longreach.engine.loading import Loading
from longreach.kv.reuse import reuses
from reuse import _engine, _keep, first
from reuse_cases import cases

WAY = "epic(share=0.2)"
HOW = ("pages", "whole", "layers")


def measure(options: Options) -> Result:
    torch.set_num_threads(options.extra.threads)
    rounds = 3 if options.quick else options.extra.rounds
    engine = _engine()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        _keep(engine, Path(folder))
        engine.quicken()
        assert engine.passages is not None
        engine.passages.postpone(False)
        engine.passages.repair_by(reuses.make(WAY))
        store = engine.passages.store
        for count in (8,) if options.quick else (8, 16):
            case = next(iter(cases(options.data, "nq_passages", count, 1, engine)))
            prompt, opening = (
                engine.parts(RankSpans().prompt(case.question, texts, engine)) for texts in (case.passages, ["."])
            )
            for _ in range(2):
                first(engine, prompt, 1)
            while store.unwritten:
                store.write_back()
                store.flush()
            seconds: dict[str, list[float]] = {how: [] for how in HOW}
            for turn in range(rounds):
                for how in (*HOW[turn % 3 :], *HOW[: turn % 3]):
                    if how != "pages":
                        store.evict(len(engine.pool))
                        first(engine, opening, 1)
                        store.flush()
                    with patch.object(Loading, "open", Loading.open if how == "layers" else lambda _: None):
                        seconds[how].append(first(engine, prompt, 1)[0])
            row: Row = {"passages": count, "tokens": sum(len(part.token_ids) for part in prompt)}
            row |= {f"{how}, ms": round(1e3 * median(seconds[how]), 1) for how in HOW}
            for how in ("pages", "layers"):
                middle, low, high = _apart(seconds[how], seconds["whole"])
                row[f"{how} to whole, %"] = f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"
            rows.append(row)
            print(row, flush=True)
        store.close()
    said = f"{options.extra.threads} threads, {rounds} rounds, {WAY}; medians, of ratios with 95 % intervals"
    return Result(rows, [], [said])


def _apart(some: list[float], others: list[float]) -> tuple[float, float, float]:
    """By how many per cent `some` differ from `others`, pair by pair: the median, and its interval by bootstrap."""
    ratios = 100 * (np.array(some) / np.array(others) - 1)
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Threads and rounds."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12, help="how often each is measured")


if __name__ == "__main__":
    run("arriving", measure, about=__doc__ or "", arguments=arguments)
