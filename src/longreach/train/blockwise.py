"""Teach a model to read passages apart from each other: `python -m longreach.train.blockwise --data FILE --out FILE`.

The original model reads prompts whole and answers; an adapter (`longreach.model.adapter`) is trained so that passages,
each read by itself behind the prompt's opening, lead to the same distributions. Block-Attention, Ma et al. 2024, arXiv
2409.15355, and KVLink, Yang et al. 2025, arXiv 2502.16002, train the whole model on answers; here the teacher is the
model itself, all its own weights stay, and with scope "passages" even the question is read without the adapter.

Loss: KL from the teacher's distribution, averaged over the tokens of answers, plus `asked` times that over the tokens
of questions, plus `read` times the squared error of what attention gives for the questions' tokens, relative to its
size, averaged over layers.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from longreach.errors import InputError, LongreachError, UnsupportedError
from longreach.model.adapter import Adapter, Scope
from longreach.model.bridge import Bridge
from longreach.train.blocks import Opening, read_opening
from longreach.train.fidelity import COURSES, Course, batches, divergence, evaluate, run_blocks
from longreach.train.material import Material
from longreach.train.teacher import Lesson, lessons

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained. `steps` bounds the run, or `seconds` where it is 0; the learning rate rises for a
    twentieth of that and falls along a cosine. `batch` tokens of prompts are one step; the teacher prepares
    `round` of them, answering half as many at a time. Prompts have at most `prompt` tokens, answers `answer`."""

    seconds: float = 300.0
    steps: int = 0
    scope: Scope = "passages"
    rank: int = 16
    scale: float = 2.0
    rate: float = 4e-4
    batch: int = 24_000
    round: int = 8
    prompt: int = 2400
    answer: int = 24
    asked: float = 0.2
    read: float = 0.1
    seed: int = 0
    modules: tuple[str, ...] = MODULES

    def __post_init__(self) -> None:
        if min(self.rank, self.batch, self.round, self.prompt, self.answer) < 1 or self.seconds <= 0 or self.steps < 0:
            raise InputError("rank, batch, round, prompt, answer and seconds must be above 0, steps not below")

    @property
    def read_batch(self) -> int:
        """Tokens of prompts that the teacher reads at a time."""
        return self.batch * max(1, self.round // 2)

    def rate_at(self, done: float) -> float:
        """The learning rate when the share `done` of the run is over."""
        rising = min(1.0, done * 20 + 0.02)
        return self.rate * rising * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@dataclass(frozen=True)
class Progress:
    """Where training stands: means since the last report."""

    step: int
    seconds: float
    tokens: int
    loss: float
    kl: float
    rate: float


def loss_of(
    bridge: Bridge, opening: Opening, taught: list[Lesson], adapter: Adapter, recipe: Recipe
) -> tuple[torch.Tensor, float]:
    """The loss of some lessons, and the mean KL over the answers' tokens in it."""
    asked, said, read = run_blocks(bridge, opening, taught, adapter, watch=recipe.read > 0)
    answers = divergence(torch.cat([one.said for one in taught]), torch.cat(said)).mean()
    loss = answers
    if recipe.asked > 0:
        loss = loss + recipe.asked * divergence(torch.cat([one.asked for one in taught]), torch.cat(asked)).mean()
    if recipe.read > 0:
        exact = torch.cat([one.read for one in taught], 1).float()
        error = (read.float() - exact).pow(2).mean((1, 2)) / exact.pow(2).mean((1, 2))
        loss = loss + recipe.read * error.mean()
    return loss, float(answers.detach())


def teach(
    bridge: Bridge, material: Material, recipe: Recipe, start: Adapter | None = None
) -> Iterator[tuple[Progress, Adapter]]:
    """Train `start`, or an adapter from nothing; yields where it stands after each round of lessons, with the adapter
    as it is then. Raises UnsupportedError for a model whose keys cannot be moved."""
    if not bridge.relocatable:
        raise UnsupportedError("the keys of this model cannot be moved: passages cannot be read apart")
    chance = np.random.default_rng(recipe.seed)
    drawing = torch.Generator(bridge.device).manual_seed(recipe.seed)
    names = [name for name, _ in bridge.model.named_modules() if name.rpartition(".")[2] in recipe.modules]
    adapter = start or Adapter.fresh(bridge.model, names, recipe.rank, recipe.scale, recipe.scope, recipe.seed)
    weights = [*adapter.down.values(), *adapter.up.values()]
    optimiser = torch.optim.AdamW(weights, lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)
    openings = {form.name: read_opening(bridge, form.opening) for form in material.forms}
    streams = {form.name: material.training_cases(form, chance, recipe.prompt) for form in material.forms}
    began, step, tokens = time.monotonic(), 0, 0
    while True:
        form = material.forms[int(chance.integers(len(material.forms)))]
        opening = openings[form.name]
        cases = list(islice(streams[form.name], max(1, recipe.round * recipe.batch // (recipe.prompt // 2))))
        # Like lengths side by side: less padding where attention is laid out.
        cases.sort(key=lambda case: case.tokens)
        sampled = drawing if chance.random() < 0.5 else None
        taught = [
            lesson
            for some in batches(cases, recipe.read_batch, lambda case: case.tokens)
            for lesson in lessons(bridge, opening, form, some, recipe.answer, sampled)
        ]
        rounds = batches(taught, recipe.batch, lambda one: one.case.tokens)
        losses, kls = [], []
        for at in chance.permutation(len(rounds)):
            done = step / recipe.steps if recipe.steps else (time.monotonic() - began) / recipe.seconds
            if done >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate_at(done)
            loss, kl = loss_of(bridge, opening, rounds[int(at)], adapter, recipe)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            losses.append(float(loss.detach()))
            kls.append(kl)
            step += 1
            tokens += sum(one.case.tokens for one in rounds[int(at)])
        if losses:
            now = time.monotonic() - began
            mean = sum(losses) / len(losses)
            yield Progress(step, now, tokens, mean, sum(kls) / len(kls), optimiser.param_groups[0]["lr"]), adapter
        if (step >= recipe.steps) if recipe.steps else (time.monotonic() - began >= recipe.seconds):
            return


def main() -> None:
    """The command."""
    from longreach.model.load import load

    given = _arguments()
    recipe = Recipe(
        **{
            name: value
            for name, value in vars(given).items()
            if name in Recipe.__dataclass_fields__ and name != "modules"
        },
        modules=tuple(given.modules.split(",")),
    )
    loaded = load(given.model, cache=given.cache, device=given.device, dtype=given.dtype)
    if loaded.device.type == "cuda":
        # cuDNN plans anew for every shape, and every batch has its own.
        torch.backends.cuda.enable_cudnn_sdp(False)
    bridge = Bridge(loaded.model)
    material = Material.load(given.data)
    print(f"{given.model} on {loaded.device} in {loaded.dtype}; {recipe}", flush=True)
    result: dict[str, object] = {"recipe": asdict(recipe), "model": given.model}
    adapters: dict[str, Adapter | None] = {"none": None}
    if given.evaluate:
        adapters |= {file.stem: Adapter.load(file).on(bridge.model) for file in given.evaluate}
    else:
        history: list[dict[str, float]] = []
        adapter: Adapter | None = None
        start = Adapter.load(given.start).trainable(bridge.model) if given.start else None
        for progress, adapter in teach(bridge, material, recipe, start):  # noqa: B007 - the last one is kept
            history.append(asdict(progress))
            print(
                f"step {progress.step:5d}  {progress.seconds:6.1f} s  {progress.tokens / progress.seconds:8.0f} "
                f"tokens/s  loss {progress.loss:.4f}  KL {progress.kl:.4f}  rate {progress.rate:.1e}",
                flush=True,
            )
        if adapter is None:
            raise InputError("the time was over before the first step: give it more seconds")
        told = {"recipe": json.dumps(asdict(recipe)), "steps": str(history[-1]["step"])}
        replace(adapter, notes=told).save(given.out)
        print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB", flush=True)
        adapters |= {given.out.stem: Adapter.load(given.out).on(bridge.model)}
        result |= {"history": history}

    def show(row: dict[str, object]) -> None:
        shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        print("  ".join(f"{key} {value}" for key, value in shown.items()), flush=True)

    courses = [Course.parse(text) for text in given.courses.split(",")] if given.courses else COURSES
    result["rows"] = evaluate(bridge, material, adapters, courses, count=given.cases, tokens=given.batch, report=show)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    usual = Recipe()
    parser = argparse.ArgumentParser(description="Teach a model to read passages apart from each other.")
    parser.add_argument("--model", default="embedded", help="embedded, a folder or a .gguf file")
    parser.add_argument("--data", type=Path, required=True, help="what longreach.train.prepare wrote")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="where the adapter is written, a .safetensors file")
    task.add_argument("--evaluate", type=Path, nargs="*", help="measure these adapters, train nothing")
    parser.add_argument("--start", type=Path, help="an adapter to go on from")
    parser.add_argument("--json", type=Path, help="write recipe, progress and measurements here")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache/longreach", help="where models are converted"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cases", type=int, default=48, help="held-out questions of each course")
    parser.add_argument("--courses", default="", help="pack:form:passages,… to measure on (default: all)")
    parser.add_argument("--scope", choices=get_args(Scope), default=usual.scope)
    parser.add_argument("--modules", default=",".join(MODULES), help="which linear modules are adapted")
    for name in ("seconds", "scale", "rate", "asked", "read"):
        parser.add_argument(f"--{name}", type=float, default=getattr(usual, name))
    for name in ("steps", "rank", "batch", "round", "prompt", "answer", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except LongreachError as error:
        raise SystemExit(f"error: {error}") from None
