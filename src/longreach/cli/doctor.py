"""`longreach doctor`: what is installed, which models and devices there are, what is slow and why; `longreach doctor
MODEL`: what reuse costs a model."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from longreach.cli import options
from longreach.cli.common import out, print_json
from longreach.config import Settings, load_settings, settings_files
from longreach.errors import InputError, LongreachError

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "lancedb",
    "kreuzberg",
    "sentencex",
    "openai",
)
PREFILL_TOKENS = 512
DECODE_TOKENS = 16


def doctor(
    measured: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Measure what reuse costs this model, and keep its card.")
    ] = None,
    model: options.Model = None,
    library: Annotated[
        Path | None,
        typer.Option("--library", "-l", metavar="DIR", help="The library; measuring, ask about its documents."),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Measure with so many prompts at most.")] = 32,
    way: Annotated[
        list[str] | None, typer.Option(help="Measure this way of reuse, such as adapter; may be repeated.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="Fit this codec of what was read, such as 'ladder(2)', and say what it costs.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what is installed, which models and devices there are, and what is slow and why; of a MODEL, how much of what
    it has read it can reuse."""
    settings = load_settings(model=measured or model, library=library, codec=codec)
    if way and codec:
        raise InputError("--way and --codec are measured one after the other: give one of them")
    if measured and codec:
        from longreach.cli.codec import fit_codec

        fit_codec(settings, prompts, own_library=library is not None, as_json=as_json)
        return
    if measured:
        from longreach.cli.gate import measure_reuse

        measure_reuse(settings, way or [], prompts, own_library=library is not None, as_json=as_json)
        return
    if way or codec:
        raise InputError("name the model to measure: longreach doctor MODEL --way ... or --codec ...")
    report: dict[str, Any] = {
        "versions": _versions(),
        "settings": {"files": [str(f) for f in settings_files() if f.is_file()], "cache": str(settings.cache)},
        "device": _device(),
        "models": _models(settings),
        "library": _library(settings),
    }
    report["speed"] = _speed(settings)
    report["advice"] = advice_on(report, settings)
    if as_json:
        print_json(report)
        return
    for title, content in report.items():
        out.print(f"[bold]{title}[/]")
        lines = content.items() if isinstance(content, dict) else [("-", line) for line in content]
        for name, value in lines:
            out.print(f"  {name:<22} {escape(str(value))}" if name != "-" else f"  - {escape(str(value))}")


def _versions() -> dict[str, str]:
    versions = {"longreach": version_of("longreach"), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version_of(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _device() -> dict[str, Any]:
    import torch

    from longreach.model.device import bfloat16_units, choose_device, choose_dtype

    device = choose_device("auto")
    found: dict[str, Any] = {
        "chosen": str(device),
        "dtype": str(choose_dtype("auto", device)).removeprefix("torch."),
        "cpu threads": torch.get_num_threads(),
        "cpu cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "cpu busy": _busy(),
        "cpu bfloat16": {"matrix": "matrix units", "vector": "vector instructions", "none": "none"}[bfloat16_units()],
    }
    for at in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(at)
        found[f"cuda:{at}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return found


def _busy() -> float | None:
    """How many cores other work has kept busy over the last minute, and so before this process; None where unknown."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _models(settings: Settings) -> dict[str, str]:
    from longreach.fetch import status

    states = {f"embedded {s.wheel.name}": str(s.folder) if s.present else "not fetched" for s in status(settings.cache)}
    return {"model": settings.model, "encoder": settings.encoder, **states}


def _library(settings: Settings) -> dict[str, Any]:
    from longreach.library import Library

    try:
        with Library.open(settings.library, cache=settings.cache) as library:
            stats = library.stats()
    except LongreachError as error:
        return {"state": str(error)}
    return {"path": str(settings.library), "documents": stats.documents, "chunks": stats.chunks, "bytes": stats.bytes}


def _speed(settings: Settings) -> dict[str, Any]:
    """Rates of the chosen model: one prefill and a few decoded tokens, after a warm-up."""
    from longreach.engine import Engine

    try:
        began = time.perf_counter()
        engine = Engine.load(settings.model, offline=True, kv_bytes=64 << 20)
        loaded = time.perf_counter() - began
        text = "The quick brown fox jumps over the lazy dog. " * PREFILL_TOKENS
        prompt = engine.encode(text)[: min(PREFILL_TOKENS, engine.context_length // 2)]
        engine.generate([prompt], max_tokens=2)
        completion = engine.generate([prompt], max_tokens=DECODE_TOKENS)[0]
    except LongreachError as error:
        return {"not measured": str(error)}
    steps = max(1, completion.usage.generated_tokens - 1)
    decoding = completion.timing.total - completion.timing.ttft
    return {
        "loading": f"{loaded:.1f} s",
        "reuse": getattr(engine, "way", "the server's own affair"),
        "prefill": f"{len(prompt) / completion.timing.ttft:,.0f} tokens/s over {len(prompt)} tokens",
        "decode": f"{steps / decoding:,.1f} tokens/s" if decoding > 0 else "one token only",
    }


def advice_on(report: dict[str, Any], settings: Settings) -> list[str]:
    """What stands out in a report of `doctor`, a sentence each."""
    advice = []
    device = report["device"]
    if device["chosen"] == "cpu":
        advice.append("the model runs on the processor: a CUDA device would be many times quicker")
        if device["cpu bfloat16"] == "none":
            advice.append(
                "the processor has no native bfloat16, so weights are float32: twice the memory to read a token"
            )
        if device["cpu threads"] <= 2:
            advice.append(
                f"only {device['cpu threads']} threads: reading a long prompt takes seconds; lower prompt_tokens"
            )
        busy, cores = device["cpu busy"] or 0.0, device["cpu cores"]
        if device["cpu threads"] > 1 and busy + device["cpu threads"] > cores + 1:
            advice.append(
                f"other work keeps {busy:g} of {cores} cores busy: threads that wait for each other may be slower than "
                f"fewer; try OMP_NUM_THREADS={max(1, int(cores - busy))}"
            )
    if any(state == "not fetched" for state in report["models"].values()):
        advice.append(
            "an embedded model is not fetched yet: `longreach models fetch` does it ahead of the first question"
        )
    if settings.reranker != "none":
        advice.append(f"every search is reranked by {settings.reranker}: slower, and worth it where ranking is weak")
    return advice or ["nothing stands out"]
