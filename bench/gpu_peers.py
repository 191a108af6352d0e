"""Attention kernels of others on a GPU, beside ours: PyTorch's FlexAttention, and FlashInfer where it is installed.

They are given less to do: keys that lie in one piece (FlexAttention) or in pages shared by all heads of a layer
(FlashInfer), at the places where they were computed, nothing hidden. Ours reads tables per head, turns queries for
what was moved, and hides what is masked (`bench/gpu_kernels.py` has its figures with all of that). Each time is by
events, the median of many; beside it the bandwidth or the rate it comes to.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from functools import partial

import torch

from harness import Options, Result, Row, run

HEADS, KV_HEADS, DIM = 32, 8, 128
DECODES = ((1, 131072), (32, 4096))
PREFILL = (8192, 131072)
"""New tokens, and how many there are with those before."""


def milliseconds(call: Callable[[], object], times: int) -> float:
    """Of one call, by events; the L2 cache is left as calls leave it: what they read is larger."""
    for _ in range(3):
        call()
    found = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return statistics.median(found)


def flex(rows: int, new: int, length: int) -> Callable[[], object]:
    """FlexAttention, compiled, causal, over keys that lie in one piece."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    shape = (rows, KV_HEADS, length, DIM)
    query = torch.randn(rows, HEADS, new, DIM, device="cuda", dtype=torch.bfloat16)
    key, value = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    before = length - new

    def seen(batch: torch.Tensor, head: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        return row + before >= column

    mask = None if new == 1 else create_block_mask(seen, None, None, new, length, device="cuda")
    compiled = torch.compile(flex_attention)
    return lambda: compiled(query, key, value, block_mask=mask, enable_gqa=True, return_lse=True)


def cudnn(rows: int, new: int, length: int) -> Callable[[], object]:
    """PyTorch's own dense attention by cuDNN, for comparison; for a prefill without what is before it would be less."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    query = torch.randn(rows, HEADS, new, DIM, device="cuda", dtype=torch.bfloat16)
    key, value = (torch.randn(rows, KV_HEADS, length, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def call() -> object:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)

    return call


def flashinfer_decode(rows: int, length: int, page: int = 64) -> Callable[[], object]:
    """FlashInfer's decoding over pages."""
    import flashinfer

    pages = rows * length // page
    cache = torch.randn(pages, 2, page, KV_HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    query = torch.randn(rows, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(256 << 20, dtype=torch.uint8, device="cuda"), "NHD", use_tensor_cores=True
    )
    first = torch.arange(rows + 1, dtype=torch.int32, device="cuda") * (length // page)
    order = torch.randperm(pages, device="cuda").int()
    last = torch.full((rows,), page, dtype=torch.int32, device="cuda")
    wrapper.plan(first, order, last, HEADS, KV_HEADS, DIM, page, q_data_type=torch.bfloat16)
    return lambda: wrapper.run(query, cache)


def measure(options: Options) -> Result:
    times, rows = 3 if options.quick else 20, []
    kinds: dict[str, Callable[[int, int, int], Callable[[], object]]] = {"flex_attention": flex, "cuDNN, dense": cudnn}
    if importlib.util.find_spec("flashinfer"):
        kinds["flashinfer, pages of a layer"] = lambda rows, new, length: flashinfer_decode(rows, length)
    for name, make in kinds.items():
        for batch, length in DECODES:
            rows.append(_row(name, f"decode {batch} x {length}", partial(make, batch, 1, length), times))
            rows[-1]["TB/s"] = _rate(rows[-1], 2 * batch * length * KV_HEADS * DIM * 2 / 1e9)
            print(rows[-1], flush=True)
        if name == "flex_attention":
            new, length = PREFILL
            rows.append(_row(name, f"{new} tokens behind {length - new}", partial(make, 1, new, length), times))
            rows[-1]["TFLOP/s"] = _rate(rows[-1], 4 * HEADS * DIM * new * (length - new / 2) / 1e9)
            print(rows[-1], flush=True)
    notes = [] if importlib.util.find_spec("flashinfer") else ["FlashInfer is not installed here"]
    return Result(rows, [], notes)


def _row(name: str, what: str, make: Callable[[], Callable[[], object]], times: int) -> Row:
    row: Row = {"kernel": name, "what": what, "ms": None, "TB/s": None, "TFLOP/s": None}
    try:
        row["ms"] = round(milliseconds(make(), times), 3)
    except Exception as error:  # a kernel that does not run is a result too
        row["ms"] = None
        print(f"{name}, {what}: {type(error).__name__}: {str(error)[:300]}", flush=True)
    torch.cuda.empty_cache()
    return row


def _rate(row: Row, giga: float) -> float | None:
    return None if row["ms"] is None else round(giga / float(str(row["ms"])), 2)


def arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


if __name__ == "__main__":
    run("gpu_peers", measure, about=__doc__ or "", arguments=arguments)
