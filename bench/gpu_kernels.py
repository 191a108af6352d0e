"""Attention kernels on a GPU, beside the device's copy bandwidth and PyTorch's dense attention, all in one run.

Needs PyTorch and Triton alone: it can be run on a machine where the rest of Longreach is not installed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from longreach.attention.attend import Scores
from longreach.attention.tables import Pages, References, Turns
from longreach.attention.triton_bounds import bound, score
from longreach.attention.triton_decode import decode, processors
from longreach.attention.triton_prefill import prefill
from longreach.attention.triton_select import decode_selected, select
from longreach.attention.triton_write import write
from longreach.attention.tuning import DecodeTuning, PrefillTuning, decode_tuning, prefill_tuning, splits
from longreach.kv.coding import numbers_of, parts_of

HEADS, GROUP, DIM, PAGE, SLOTS = 8, 4, 128, 64, 8
SCALE = DIM**-0.5
DECODE = [
    DecodeTuning(4, 3, 3),
    DecodeTuning(4, 2, 5),
    DecodeTuning(4, 4, 2),
    DecodeTuning(2, 3, 3),
    DecodeTuning(2, 2, 5),
    DecodeTuning(8, 3, 3),
    DecodeTuning(8, 4, 2),
]
PREFILL = [
    PrefillTuning(128, 128, 8, 3, 1),
    PrefillTuning(128, 128, 8, 2, 1),
    PrefillTuning(128, 64, 8, 3, 1),
    PrefillTuning(128, 64, 8, 4, 1),
    PrefillTuning(64, 64, 4, 3, 1),
]
Rows = list[dict[str, Any]]


def seconds(run: Callable[[], object], times: int, *, graph: bool = False) -> float:
    """The median time of `run` on the device; with `graph`, of a captured graph of it."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        run = captured.replay
        run()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(times)]
    for begin, end in marks:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in marks) / 1e3


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of one large copy."""
    source = torch.empty(2**30, dtype=torch.bfloat16, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 2 / seconds(lambda: target.copy_(source), 20)


def tables(
    sequences: int, tokens: int, slots: int, *, masks: bool, kept: torch.dtype = torch.bfloat16
) -> tuple[Pages, References, Turns]:
    """Scattered pages of `tokens` entries a stream, stored as `kept`, at positions 0, 1, ..; slots in runs of 8 pages;
    with `masks`, every seventh page has half its entries hidden."""
    width = tokens // PAGE
    shape = (sequences, HEADS, width)
    count = sequences * HEADS * width
    at = torch.randperm(count, device="cuda").int().view(shape)
    positions = torch.empty(count, PAGE, dtype=torch.int32, device="cuda")
    positions[at.long()] = torch.arange(tokens, dtype=torch.int32, device="cuda").view(width, PAGE)
    keys, values = (torch.randn(count, PAGE, DIM, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    stored = [torch.cat(parts) for parts in zip(*map(_as(kept), keys.split(2048), values.split(2048)), strict=True)]
    slot = (torch.arange(width, device="cuda") // 8 % slots).int().expand(shape).contiguous()
    alive = torch.full(shape, -1, dtype=torch.int64, device="cuda")
    if masks:
        alive[..., ::7] = 0x0F0F0F0F0F0F0F0F
    counts = torch.full(shape[:2], width, dtype=torch.int32, device="cuda")
    shifts = torch.zeros(sequences, slots, dtype=torch.int32, device="cuda")
    shifts[:, 1:] = torch.randint(-1000, 0, (sequences, slots - 1), device="cuda", dtype=torch.int32)
    rate = 500000.0 ** (-torch.arange(0, DIM, 2, device="cuda").double() / DIM)
    angle = shifts.double()[..., None] * rate
    turns = Turns(angle.cos().float(), angle.sin().float(), shifts)
    return Pages(stored[0], stored[1], positions, *stored[2:]), References(at, slot, alive, counts), turns


def _as(kept: torch.dtype) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]:
    return lambda keys, values: parts_of(keys, values, kept)


def numbers(pages: Pages, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of some pages in float32."""
    scales = [x[which] for x in (pages.key_scales, pages.value_scales) if x is not None]
    keys, values = numbers_of([pages.keys[which], pages.values[which], *scales])
    return keys.float(), values.float()


def error(
    output: torch.Tensor, query: torch.Tensor, at: int, s: int, pages: Pages, references: References, turns: Turns
) -> float:
    """How far one token's output `[Hq, D]` is from the definition in float32, relative, for its first KV head."""
    ids, slots = references.pages[s, 0].long(), references.slots[s, 0].long()
    cos, sin = turns.cosines[s][slots][:, None], turns.sines[s][slots][:, None]
    first, second = query[None, :GROUP].float().chunk(2, -1)
    turned = torch.cat([first * cos + second * sin, second * cos - first * sin], -1)
    keys, values = numbers(pages, ids)
    scores = turned @ keys.transpose(1, 2) * SCALE
    seen = (references.alive[s, 0][:, None] >> torch.arange(PAGE, device="cuda") & 1).bool()
    seen &= pages.positions[ids] + turns.shifts[s][slots][:, None] <= at
    scores = scores.masked_fill(~seen[:, None], -torch.inf).transpose(0, 1).flatten(1)
    wanted = torch.softmax(scores, -1) @ values.flatten(0, 1)
    return float((output[:GROUP].float() - wanted).norm() / wanted.norm())


def tune_decode(bandwidth: float, sequences: int, tokens: int, times: int, tunings: list[DecodeTuning]) -> Rows:
    """One row for each way to cut, then PyTorch's."""
    rows: Rows = []
    what = f"decode {sequences} x {tokens}"
    query = torch.randn(sequences, HEADS * GROUP, DIM, dtype=torch.bfloat16, device="cuda")
    position = torch.full((sequences,), tokens, dtype=torch.int32, device="cuda")
    moved = 2 * sequences * HEADS * tokens * DIM * 2
    width = tokens // PAGE
    chosen = decode_tuning(PAGE, 2 * DIM, GROUP, sequences * width)

    def row(how: str, took: float, wrong: float | None, *, ours: bool = False) -> None:
        fast = moved / took
        rows.append(
            {
                "case": what,
                "how": how,
                "chosen": ours,
                "microseconds": round(took * 1e6, 1),
                "rate": f"{fast / 1e12:.2f} TB/s",
                "of_limit": round(fast / bandwidth, 3),
                "limit": f"copies {bandwidth / 1e12:.2f} TB/s",
                "error": wrong,
            }
        )

    for slots, masks in ((SLOTS, True), (1, False)):
        given = tables(sequences, tokens, slots, masks=masks)
        name = "slots, masks" if masks else "plain"
        for tuning in tunings if masks else [chosen]:
            usual = splits(sequences * HEADS, width, tuning.resident * processors(query.device))
            for parts in sorted({usual, min(2 * usual, 128)} if len(tunings) > 1 and masks else {usual}):

                def run(tuning: DecodeTuning = tuning, parts: int = parts, given: Any = given) -> Any:
                    return decode(query, position, *given, scale=SCALE, parts=parts, tuning=tuning)

                label = f"{name}: warps {tuning.warps}, stages {tuning.stages}, parts {parts}"
                try:
                    output, _ = run()
                except Exception as refused:  # a cut that this device has no room for is no result, but no end either
                    print(f"{what}, {label}: {type(refused).__name__}: {refused}", file=sys.stderr)
                    continue
                wrong = error(output[0], query[0], tokens, 0, *given)
                row(label, seconds(run, times, graph=True), wrong, ours=tuning == chosen and parts == usual)
        del given
    _dense_decode(row, query, sequences, tokens, times)
    return rows


def _dense_decode(row: Callable[..., None], query: torch.Tensor, sequences: int, tokens: int, times: int) -> None:
    key = torch.randn(sequences, HEADS, tokens, DIM, dtype=torch.bfloat16, device="cuda")
    value = torch.randn_like(key)
    own = query[:, :, None]
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            try:
                took = seconds(lambda: F.scaled_dot_product_attention(own, key, value, enable_gqa=True), times)
            except RuntimeError:
                continue
        row(f"dense, contiguous, {backend.name.lower()}", took, None)


def tune_prefill(tokens: int, chunk: int, times: int, tunings: list[PrefillTuning]) -> Rows:
    """The last chunk of a prompt of `tokens` for each way to cut; the whole prompt with the chosen one; PyTorch's."""
    rows: Rows = []
    heads = HEADS * GROUP
    given = tables(1, tokens, 1, masks=False)
    pages, references, turns = given
    query = torch.randn(tokens, heads, DIM, dtype=torch.bfloat16, device="cuda")
    position = torch.arange(tokens, dtype=torch.int32, device="cuda")
    starts = torch.tensor([0, chunk], dtype=torch.int32, device="cuda")
    chosen = prefill_tuning(PAGE, 2 * DIM, chunk * GROUP)

    def row(case: str, how: str, took: float, pairs: float, wrong: float | None, *, ours: bool = False) -> None:
        rate = 4 * DIM * heads * pairs / took
        rows.append(
            {
                "case": case,
                "how": how,
                "chosen": ours,
                "microseconds": round(took * 1e6, 1),
                "rate": f"{rate / 1e12:.0f} TFLOP/s",
                "of_limit": round(rate / 989e12, 3),
                "limit": "products 989 TFLOP/s",
                "error": wrong,
            }
        )

    def part(begin: int, tuning: PrefillTuning | None, turns: Turns = turns, table: References = references) -> Any:
        own = slice(begin, begin + chunk)
        counts = torch.full_like(references.counts, (begin + chunk) // PAGE)
        seen = References(table.pages, table.slots, table.alive, counts)
        return prefill(query[own], position[own], starts, pages, seen, turns, scale=SCALE, tuning=tuning)

    begin = tokens - chunk
    pairs = chunk * begin + chunk * (chunk + 1) / 2
    for tuning in tunings:
        label = f"rows {tuning.rows}, entries {tuning.entries}, warps {tuning.warps}, stages {tuning.stages}"
        try:
            output, _ = part(begin, tuning)
        except Exception as refused:  # as above
            print(f"prefill, {label}: {type(refused).__name__}: {refused}", file=sys.stderr)
            continue
        wrong = error(output[-1], query[-1], tokens - 1, 0, *given)
        took = seconds(lambda tuning=tuning: part(begin, tuning), times)  # type: ignore[misc]
        row(f"prefill, last {chunk} of {tokens}", label, took, pairs, wrong, ours=tuning == chosen)
    whole = seconds(lambda: [part(at, None) for at in range(0, tokens, chunk)], 1)
    row(f"prefill of {tokens} by {chunk}", "chosen", whole, tokens * (tokens + 1) / 2, None, ours=True)
    slotted = tables(1, PAGE * 8, SLOTS, masks=False)[2]
    slots = (torch.arange(references.slots.shape[2], device="cuda") // 8 % SLOTS).int().expand_as(references.slots)
    turned = References(references.pages, slots.contiguous(), references.alive, references.counts)
    took = seconds(lambda: part(begin, None, slotted, turned), times)
    row(f"prefill, last {chunk} of {tokens}", "chosen, slots in runs of 8 pages", took, pairs, None)
    key = torch.randn(1, HEADS, tokens, DIM, dtype=torch.bfloat16, device="cuda")
    own = query.transpose(0, 1)[None]
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            try:
                took = seconds(
                    lambda: F.scaled_dot_product_attention(own, key, key, is_causal=True, enable_gqa=True), 1
                )
            except RuntimeError:
                continue
        row(f"prefill of {tokens}", f"dense, at once, {backend.name.lower()}", took, tokens * (tokens + 1) / 2, None)
    return rows


def time_selected(bandwidth: float, tokens: int, budget: int, times: int) -> Rows:
    """One step of page_select (bounds of the page being written, scores, choice, attention) beside attention to all."""
    pages, references, turns = tables(1, tokens, 1, masks=False)
    query = torch.randn(1, HEADS * GROUP, DIM, dtype=torch.bfloat16, device="cuda")
    position = torch.full((1,), tokens, dtype=torch.int32, device="cuda")
    bounds = torch.zeros(len(pages.keys), 2, DIM, dtype=torch.bfloat16, device="cuda")
    bound(pages, references.pages.flatten(), bounds)
    most = budget // PAGE + 1
    wanted = torch.tensor([most], dtype=torch.int32, device="cuda")
    writing = references.pages[0, :, -1].contiguous()
    scores = Scores(SCALE)

    def selected() -> Any:
        bound(pages, writing, bounds)
        return decode_selected(query, position, pages, bounds, references, turns, wanted, most, scores)

    def whole() -> Any:
        return decode(query, position, pages, references, turns, scale=SCALE)

    chosen = select(score(query, pages, bounds, references, turns), references, wanted, most)
    at = bounds[references.pages[0].long()].float()
    by_hand = torch.maximum(
        query.view(HEADS, GROUP, 1, DIM).float() * at[:, None, :, 0],
        query.view(HEADS, GROUP, 1, DIM).float() * at[:, None, :, 1],
    )
    best = by_hand.sum(-1).amax(1)[:, :-1].topk(most - 1).indices.sort().values
    same = torch.equal(references.pages[0].gather(1, best), chosen.pages[0, :, :-1])
    parts = {
        "bounds of the last page": lambda: bound(pages, writing, bounds),
        "scores": lambda: score(query, pages, bounds, references, turns),
        "choice": lambda: select(score(query, pages, bounds, references, turns), references, wanted, most),
    }
    dense, sparse = seconds(whole, times, graph=True), seconds(selected, times, graph=True)
    moved = 2 * HEADS * (tokens // PAGE * DIM * 2 + most * PAGE * DIM * 2)
    rows = [(f"{budget} tokens selected", sparse, moved), ("all", dense, 2 * HEADS * tokens * DIM * 2)]
    rows += [(f"of it, {name}", seconds(run, times, graph=True), 0) for name, run in parts.items()]
    return [
        {
            "case": f"decode 1 x {tokens}, page_select", "how": how, "chosen": how.endswith("selected"),
            "microseconds": round(took * 1e6, 1), "rate": f"{moved / took / 1e12:.2f} TB/s",
            "of_limit": round(moved / took / bandwidth, 3), "limit": f"copies {bandwidth / 1e12:.2f} TB/s",
            "error": None if how != "all" else 0.0 if same else 1.0, "times_dense": round(dense / took, 2),
        }
        for how, took, moved in rows
    ]  # fmt: skip


def time_write(bandwidth: float, times: int) -> dict[str, Any]:
    """What a chunk of 8,192 tokens takes to be written."""
    tokens = 8192
    pages, references, _ = tables(1, tokens, 1, masks=False)
    key = torch.randn(tokens, HEADS, DIM, dtype=torch.bfloat16, device="cuda")
    position = torch.arange(tokens, dtype=torch.int32, device="cuda")
    target = references.pages[0].T.repeat_interleave(PAGE, 0).contiguous()
    took = seconds(lambda: write(key, key, position, target, position % PAGE, pages), times)
    rate = 4 * key.numel() * 2 / took
    return {
        "case": f"write {tokens}", "how": "", "chosen": True, "microseconds": round(took * 1e6, 1),
        "rate": f"{rate / 1e12:.2f} TB/s", "of_limit": round(rate / bandwidth, 3),
        "limit": f"copies {bandwidth / 1e12:.2f} TB/s", "error": None,
    }  # fmt: skip


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and cuts; only a hint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment, rows and bars here")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU that PyTorch can use; kernels are only measured on one.")
        return
    torch.manual_seed(0)
    times = 10 if given.quick else 30
    bandwidth = copy_bandwidth()
    rows: Rows = []
    cases = [(1, 131072), (32, 4096)] if given.quick else [(1, 131072), (32, 4096), (1, 32768), (1, 4096)]
    for sequences, tokens in cases:
        # Each cut on the two cases of the bars; elsewhere the chosen one.
        cuts = DECODE if sequences * tokens == 131072 and not given.quick else [decode_tuning(PAGE, 2 * DIM, GROUP, 0)]
        rows += _printed(tune_decode(bandwidth, sequences, tokens, times, cuts))
        torch.cuda.empty_cache()
    rows += _printed(time_selected(bandwidth, 131072, 4096, times))
    rows += _printed([time_write(bandwidth, times)])
    length = 32768 if given.quick else 131072
    cuts = [prefill_tuning(PAGE, 2 * DIM, 8192)] if given.quick else PREFILL
    rows += _printed(tune_prefill(length, 8192, 3, cuts))
    report = {
        "benchmark": "gpu_kernels",
        "quick": given.quick,
        "command": " ".join(["python", "bench/gpu_kernels.py", *sys.argv[1:]]),
        "environment": {
            "python": platform.python_version(),
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "copy_bandwidth": bandwidth,
            "shape": {"kv_heads": HEADS, "group": GROUP, "dim": DIM, "page": PAGE, "dtype": "bfloat16"},
            "chosen": [asdict(decode_tuning(PAGE, 2 * DIM, GROUP, 0)), asdict(prefill_tuning(PAGE, 2 * DIM, 8192))],
        },
        "rows": rows,
        "bars": bars(rows),
    }
    for bar in bars(rows):
        print(f"{bar['name']}: {bar['value']} (bar {bar['bar']}) {'holds' if bar['holds'] else 'does not hold'}")
    if given.quick:
        print("quick run: only a hint")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if not given.quick and not all(bar["holds"] for bar in report["bars"]):
        raise SystemExit(1)


def bars(rows: Rows) -> list[dict[str, Any]]:
    """What must hold of the chosen cuts."""
    found = []
    for case in ("decode 1 x 131072", "decode 32 x 4096"):
        shares = [r["of_limit"] for r in rows if r["case"] == case and r["chosen"] and r["how"].startswith("slots")]
        found.extend((f"{case}, share of copy bandwidth", share, 0.8, share >= 0.8) for share in shares)
    for r in rows:
        if r["how"] == "4096 tokens selected":
            times = r["times_dense"]
            found.append((f"{r['case']}: times as fast as all", times, 5.0, times >= 5))
        if r["case"].startswith("prefill of") and r["how"] == "chosen":
            rate = float(r["rate"].split()[0])
            found.append((f"{r['case']}, TFLOP/s", rate, 350.0, rate >= 350))
    worst = max((r["error"] for r in rows if r["error"] is not None), default=0.0)
    found.append(("greatest relative error", worst, 0.02, worst <= 0.02))
    return [dict(zip(("name", "value", "bar", "holds"), bar, strict=True)) for bar in found]


def _printed(rows: Rows) -> Rows:
    for case, group in itertools.groupby(rows, key=lambda row: row["case"]):
        print(case)
        for row in group:
            wrong = "" if row["error"] is None else f"  error {row['error']:.1e}"
            mark = "*" if row["chosen"] else " "
            print(
                f" {mark} {row['how']:60} {row['microseconds']:10.1f} us  {row['rate']:>12}  {row['of_limit']:.2f} of"
                f" {row['limit']}{wrong}",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main()
