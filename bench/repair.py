"""Which tokens of stored chunks to compute again: how near answers come to the full prefill's, and at what cost.

A model in float32 (the embedded one, or another Llama) answers real questions over 8 and 16 passages that were read by
themselves. Every method of `longreach.kv.reuse` is followed on the full prefill's own greedy answer; what is computed
again is really computed. Cost is in token-layers, as a share of the full prefill's, the look at the question included.

    python bench/repair.py [--quick] [--json FILE] [--cases 15] [--shares 0.15 0.3] [--device cuda]

It can be measured in parts: `--keep` writes the outcomes of a run as they come, `--kept` shows several runs as one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import harness
from blockwise import Net
from longreach.config import Settings
from longreach.kv.reuse import reuses
from longreach.model.load import load
from repair_cases import Case, cases
from repair_desk import Desk
from repair_prompt import Outcome

PACKS = ("nq_passages", "musique")
ANSWERED = ("naive", "cacheblend(share=0.15)", "gaze(share=0.15)", "gaze(share=0.3)")
"""Whose own answers are written, beside the full prefill's."""


@dataclass
class Seen:
    """The outcomes of one method, case by case."""

    spec: str
    passages: int
    outcomes: list[Outcome] = field(default_factory=list)

    def kl(self) -> torch.Tensor:
        """`[cases]`: mean over the answer's tokens."""
        return torch.stack([outcome.kl.mean() for outcome in self.outcomes])

    def agreement(self) -> float:
        """Of the tokens whose exact probability is at least a half."""
        agree = torch.cat([outcome.agree[outcome.sure] for outcome in self.outcomes])
        return float(agree.float().mean()) if len(agree) else 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=15, help="questions of each pack, for each number of passages")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2, 0.3, 0.5])
    parser.add_argument("--passages", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--packs", nargs="+", choices=PACKS, default=PACKS)
    parser.add_argument("--model", default="embedded", help="a Llama")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", choices=["dev", "test"], default="test")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the outcomes of every case here, as they come")
    parser.add_argument("--kept", type=Path, nargs="+", metavar="FILE", help="measure nothing, show what was kept")


def specs(shares: list[float]) -> list[str]:
    """What is measured: methods without a share once, the others at each."""
    fixed = ["naive", "naive(lead='filler')", "ape"]
    chosen = [f"{name}(share={share})" for share in shares for name in ("epic", "cacheblend", "cache_craft", "gaze")]
    return [*fixed, *chosen, *(f"cacheblend(share={share}, lead='filler')" for share in shares if share >= 0.15)]


def measure(options: harness.Options) -> harness.Result:
    given = options.extra
    counts, passages, shares, packs = given.cases, given.passages, given.shares, given.packs
    if options.quick:
        counts, passages, shares, packs = 1, [8], [0.15], PACKS[:1]
    torch.set_grad_enabled(False)
    if given.kept:
        seen_in_parts, told_in_parts, devices = gathered(given.kept)
        return summary(seen_in_parts, told_in_parts, shares, devices)
    loaded = load(given.model, cache=Settings().cache, device=given.device, dtype="float32")
    torch.set_default_device(given.device)
    device = f"{torch.cuda.get_device_name() if given.device != 'cpu' else 'the CPU'}, torch {torch.__version__}"
    desk = Desk(Net(loaded.model), loaded.tokenizer, loaded.end_tokens)
    off = _off(desk.net, loaded.model)
    if off > 1e-3:
        raise SystemExit(f"the passes differ from transformers' by {off:.2g}: nothing was measured")
    seen = {(n, spec): Seen(spec, n) for n in passages for spec in specs(shares)}
    recall: dict[tuple[int, str], list[float]] = {}
    for n in passages:
        for case in _cases(options.data, n, counts, loaded.tokenizer, given.part, packs):
            prompt = desk.lay(case)
            recall.setdefault((n, "full_prefill"), []).append(_told(desk, prompt.answer, case))
            for spec in specs(shares):
                outcome = desk.follow(prompt, reuses.make(spec))
                if spec in ANSWERED:
                    answer = desk.own_answer(prompt, outcome)
                    recall.setdefault((n, spec), []).append(_told(desk, answer, case))
                seen[n, spec].outcomes.append(outcome.light())
            print(f"{n} passages: {case.name}", file=sys.stderr, flush=True)
            if given.keep:
                torch.save((list(seen.values()), recall, device), given.keep)
    torch.set_default_device("cpu")
    return summary(list(seen.values()), recall, shares, {device})


def gathered(files: list[Path]) -> tuple[list[Seen], dict[tuple[int, str], list[float]], set[str]]:
    """What several runs kept, as if one had measured all their cases, and the devices they ran on."""
    seen: dict[tuple[int, str], Seen] = {}
    recall: dict[tuple[int, str], list[float]] = {}
    devices: set[str] = set()
    for file in files:
        some, told, device = torch.load(file, weights_only=False)
        devices.add(device)
        for one in some:
            seen.setdefault((one.passages, one.spec), Seen(one.spec, one.passages)).outcomes.extend(one.outcomes)
        for key, answers in told.items():
            recall.setdefault(key, []).extend(answers)
    return list(seen.values()), recall, devices


def summary(
    seen: list[Seen], recall: dict[tuple[int, str], list[float]], shares: list[float], devices: set[str]
) -> harness.Result:
    """The table, the bars of issue 4, and the intervals as notes."""
    rows: list[harness.Row] = []
    for one in seen:
        if not one.outcomes:
            continue
        kl, told = one.kl(), recall.get((one.passages, one.spec))
        low, high = interval(kl, lambda kl: kl.mean())
        rows.append(
            {
                "method": one.spec,
                "passages": one.passages,
                "cases": len(kl),
                "KL": float(kl.mean()),
                "KL low": low,
                "KL high": high,
                "KL first": float(torch.stack([outcome.kl[0] for outcome in one.outcomes]).mean()),
                "agreement": one.agreement(),
                "recomputed": _mean(outcome.recomputed for outcome in one.outcomes),
                "cost": _mean(outcome.cost for outcome in one.outcomes),
                "recall": sum(told) / len(told) if told else None,
            }
        )
    kls = {(one.spec, one.passages): one.kl() for one in seen if one.outcomes}
    bars, notes = [], [f"followed on {', '.join(sorted(devices))}"]
    for n in sorted({one.passages for one in seen}):
        for share in shares:
            ours = kls.get((f"gaze(share={share})", n))
            for other in (f"cacheblend(share={share})", f"cacheblend(share={share}, lead='filler')"):
                theirs = kls.get((other, n))
                if ours is None or theirs is None or share < 0.15:
                    continue
                both = torch.stack([ours, theirs], 1)
                low, high = interval(both, lambda both: both[:, 0].mean() / both[:, 1].mean())
                name = f"{n} passages: KL of gaze({share}) / {other}"
                bars.append(harness.at_most(name, float(ours.mean() / theirs.mean()), 1 / 3 if share >= 0.3 else 0.5))
                notes.append(f"{name}: 95% interval {low:.2f} to {high:.2f}")
        for one in seen:
            if one.passages == n and one.spec == "gaze(share=0.15)":
                bars.append(harness.at_most(f"{n} passages: KL of gaze(0.15)", float(one.kl().mean()), 0.05))
                bars.append(harness.at_least(f"{n} passages: agreement of gaze(0.15)", one.agreement(), 0.99))
                cost = _mean(outcome.cost for outcome in one.outcomes)
                bars.append(harness.at_most(f"{n} passages: cost of gaze(0.15)", cost, 0.35))
        exact = recall[n, "full_prefill"]
        notes.append(f"{n} passages: recall of the full prefill {sum(exact) / len(exact):.3f}")
    return harness.Result(rows, bars, notes)


def interval(values: torch.Tensor, of: Callable[[torch.Tensor], torch.Tensor]) -> tuple[float, float]:
    """The 95% interval of a figure over cases, by 2,000 bootstrap samples of the cases."""
    drawn = torch.Generator().manual_seed(0)
    picks = torch.randint(len(values), (2000, len(values)), generator=drawn)
    figures = torch.stack([of(values[pick]) for pick in picks])
    return float(figures.quantile(0.025)), float(figures.quantile(0.975))


def _cases(data: Path, n: int, count: int, tokenizer: Any, part: str, packs: Sequence[str]) -> Iterator[Case]:
    found = [cases(data, pack, n, count, tokenizer, part=part) for pack in packs]
    for together in zip(*found, strict=True):
        yield from together


def _off(net: Net, model: Any) -> float:
    """The greatest difference to transformers in the log-probabilities after some tokens."""
    ids = torch.arange(100, 160)
    hidden = net.compute(net.memory(torch.arange(60)), ids, torch.arange(60)).hidden
    return float((net.log_probs(hidden) - model(ids[None]).logits[0].float().log_softmax(-1)).abs().max())


def _told(desk: Desk, answer: torch.Tensor, case: Case) -> float:
    text = desk.tokenizer.decode(answer, skip_special_tokens=True).casefold()
    return float(any(wanted.casefold() in text for wanted in case.answers))


def _mean(values: Iterator[float]) -> float:
    held = list(values)
    return sum(held) / len(held)


if __name__ == "__main__":
    harness.run("repair", measure, about=__doc__.splitlines()[0], arguments=arguments)
