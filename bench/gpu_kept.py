"""How keys and values are kept on a GPU: kernels and a decoding step with pages of 16, 8 and 4 bits, in one run.

Kernels are measured as in `bench/gpu_kernels.py`, the engine as in `bench/gpu_engine.py`: Llama-3-8B's shape with
random weights. Beside each figure stands the physical limit, of the bytes that these pages have.
"""

from __future__ import annotations

import argparse
import gc
from functools import partial

import torch

from gpu_engine import COPIES, SHAPE, TINY, decode, engine_of, random_model
from gpu_kernels import DIM, GROUP, HEADS, PAGE, SCALE, SLOTS, error, seconds, tables
from harness import Bar, Options, Result, Row, at_least, at_most, run
from longreach.attention.triton_decode import decode as decode_kernel
from longreach.attention.triton_decode import processors
from longreach.attention.triton_prefill import prefill
from longreach.attention.triton_write import write
from longreach.attention.tuning import DecodeTuning, PrefillTuning, decode_tuning, prefill_tuning, splits
from longreach.kv.coding import entry_bytes, kept_as

KEPT = ("bfloat16", "int8", "int4")
DECODE = [
    DecodeTuning(4, 3, 3),
    DecodeTuning(4, 4, 4),
    DecodeTuning(4, 2, 4),
    DecodeTuning(8, 3, 2),
    DecodeTuning(2, 3, 4),
]
PREFILL = [PrefillTuning(128, 128, 8, 3, 1), PrefillTuning(128, 128, 8, 2, 1), PrefillTuning(128, 64, 8, 3, 1)]
LONG, CHUNK = 131072, 8192


def kernels(name: str, every: bool) -> list[Row]:
    """One token after so many, of one and of 32 sequences; the last chunk of a long prompt; a chunk written. `every`
    cut, or the one that is chosen."""
    kept, rows = kept_as(name), []
    line = entry_bytes(DIM, DIM, kept)
    chosen = decode_tuning(PAGE, 2 * DIM, GROUP, 0)
    for sequences, tokens in ((1, LONG), (32, 4096)):
        for slots in (1, SLOTS):
            what = f"decode {sequences} x {tokens:,}, {'moved passages' if slots > 1 else 'one text'}"
            limit = sequences * HEADS * tokens * line / COPIES
            query = torch.randn(sequences, HEADS * GROUP, DIM, dtype=torch.bfloat16, device="cuda")
            position = torch.full((sequences,), tokens, dtype=torch.int32, device="cuda")
            given = tables(sequences, tokens, slots, masks=slots > 1, kept=kept)
            for tuning in DECODE if every else [chosen]:
                parts = splits(sequences * HEADS, tokens // PAGE, tuning.resident * processors(query.device))
                once = partial(decode_kernel, query, position, *given, scale=SCALE, parts=parts, tuning=tuning)
                wrong = error(once()[0][0], query[0], tokens, 0, *given)
                rows.append(_row(name, what, tuning, tuning == chosen, seconds(once, 30, graph=True), limit, wrong))
            del given
    pages, references, turns = tables(1, LONG, 1, masks=False, kept=kept)
    query = torch.randn(CHUNK, HEADS * GROUP, DIM, dtype=torch.bfloat16, device="cuda")
    position = torch.arange(LONG - CHUNK, LONG, dtype=torch.int32, device="cuda")
    starts = torch.tensor([0, CHUNK], dtype=torch.int32, device="cuda")
    best = prefill_tuning(PAGE, 2 * DIM, CHUNK * GROUP)
    for cut in PREFILL if every else [best]:
        last = partial(prefill, query, position, starts, pages, references, turns, scale=SCALE, tuning=cut)
        wrong = error(last()[0][-1], query[-1], LONG - 1, 0, pages, references, turns)
        limit = 4 * DIM * HEADS * GROUP * CHUNK * (LONG - CHUNK / 2) / 750e12
        rows.append(
            _row(name, f"prefill, last {CHUNK:,} of {LONG:,}", cut, cut == best, seconds(last, 3), limit, wrong)
        )
    key = torch.randn(CHUNK, HEADS, DIM, dtype=torch.bfloat16, device="cuda")
    at = torch.arange(CHUNK, dtype=torch.int32, device="cuda")
    target = references.pages[0, :, : CHUNK // PAGE].T.repeat_interleave(PAGE, 0).contiguous()
    took = seconds(lambda: write(key, key, at, target, at % PAGE, pages), 30)
    rows.append(_row(name, f"write {CHUNK:,}", None, True, took, CHUNK * HEADS * (4 * DIM + line) / COPIES, None))
    return rows


def _row(
    name: str,
    what: str,
    cut: DecodeTuning | PrefillTuning | None,
    chosen: bool,
    took: float,
    limit: float,
    off: float | None,
) -> Row:
    row: Row = {
        "kept": name,
        "what": what,
        "cut": "" if cut is None else "/".join(map(str, vars_of(cut))),
        "chosen": chosen,
    }
    row |= {"microseconds": round(1e6 * took, 1), "limit": round(1e6 * limit, 1), "of limit": round(limit / took, 3)}
    print(row | {"error": off}, flush=True)
    return row | {"error": None if off is None else round(off, 5)}


def vars_of(cut: DecodeTuning | PrefillTuning) -> list[int]:
    """The numbers of a cut, in order."""
    return [getattr(cut, name) for name in cut.__slots__]


def steps(name: str, model: object, contexts: list[int], kv_bytes: int) -> list[Row]:
    """Decoding steps of the engine, alone on the device, and what a token of a prompt takes of the pool."""
    engine = engine_of(model, kv_bytes, kv_dtype=kept_as(name))
    size, entry, rows = engine.loaded.bytes, engine.kv_bytes_of(LONG) / LONG, []
    size -= model.get_input_embeddings().weight.nbytes  # type: ignore[attr-defined]
    decode(engine, 300, 4)
    for context in contexts:
        prefilled, token, step = decode(engine, context)
        row: Row = {"kept": name, "what": f"engine, decode 1 x {context:,}", "cut": "", "chosen": True}
        row |= {"microseconds": round(1e6 * step), "limit": round(1e6 * (size + context * entry) / COPIES)}
        row |= {"ms a token": round(1e3 * token, 2), "prefill s": round(prefilled, 2), "bytes a token": round(entry)}
        print(row, flush=True)
        rows.append(row)
    return rows


def measure(options: Options) -> Result:
    if not torch.cuda.is_available() and not options.extra.rehearse:
        return Result([], [], ["there is no GPU here: nothing was measured"])
    rows: list[Row] = []
    if torch.cuda.is_available() and options.extra.only != "engine":
        torch.manual_seed(0)
        for name in KEPT:
            rows += kernels(name, options.extra.cuts)
            torch.cuda.empty_cache()
    if options.extra.only != "kernels":
        device, there = ("cuda", SHAPE) if torch.cuda.is_available() else ("cpu", TINY)
        model = random_model(there, device, torch.bfloat16)
        for name in KEPT:
            contexts, room = ([1024, 32768, LONG], 20 << 30) if device == "cuda" else ([256], 256 << 20)
            rows += steps(name, model, contexts, room)
            gc.collect()
    columns = dict.fromkeys(column for row in rows for column in row)
    rows = [{column: row.get(column) for column in columns} for row in rows]
    return Result(rows, _bars(rows), ["bfloat16 queries, 8 KV heads of 128, 4 query heads each, pages of 64"])


def _bars(rows: list[Row]) -> list[Bar]:
    found = {(row["kept"], row["what"]): row["microseconds"] for row in rows if row["chosen"] and row["microseconds"]}
    bars = [
        at_least(
            f"{what}: {name} times as fast as bfloat16", round(found["bfloat16", what] / found[name, what], 2), 1.0
        )
        for name in KEPT[1:]
        for kept, what in found
        if kept == name and "decode" in what and "1,024" not in what
    ]
    wrong = [row["error"] for row in rows if row.get("error") is not None]
    return bars + ([at_most("greatest relative error", max(wrong), 0.02)] if wrong else [])


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured, and a rehearsal."""
    parser.add_argument("--only", choices=("kernels", "engine"), help="measure one of them alone")
    parser.add_argument("--cuts", action="store_true", help="try several cuts of each kernel")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model, on any device: whether it runs at all")


if __name__ == "__main__":
    run("gpu_kept", measure, about=__doc__ or "", arguments=arguments)
