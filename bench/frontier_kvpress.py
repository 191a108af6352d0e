"""What kvpress answers to the same examples, for `frontier.py --kvpress`: run by the Python of an environment with it.

    python bench/frontier.py --dump build/kvpress                      # examples and model, by the usual environment
    KVPRESS-PYTHON bench/frontier_kvpress.py build/kvpress --json build/kvpress/answers.json

One prefill serves every budget: each press is given the keys and values of that prefill, as it is in one of its own,
and the answers go on from what it keeps, at the positions of the text, as kvpress's own pipeline goes on. Bytes are
those of the tensors that the cache holds when the answer ends.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from kvpress import ScorerPress, SnapKVPress, StreamingLLMPress
from kvpress.presses.base_press import BasePress
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

PRESSES = ("snapkv", "streamingllm")
BUDGETS = (0.1, 0.2, 0.4, 0.7)
WINDOW, KERNEL = 32, 7
WINDOWS = (64, 128, 256, 512)
SINKS = 4
STOPS = ("\n\n", "\nQuestion:")
Kept = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Several(BasePress):
    """Lets each of `presses` keep its own of one prefill, which goes on whole."""

    presses: dict[str, ScorerPress]
    kept: dict[str, Kept] = field(default_factory=dict)

    def compress(self, module, hidden_states, keys, values, attentions, kwargs):  # type: ignore[no-untyped-def]
        for name, press in self.presses.items():
            left = press.compress(module, hidden_states, keys, values, attentions, kwargs)
            self.kept.setdefault(name, []).append(left)
        self.kept.setdefault("full", []).append((keys, values))
        return keys, values


def presses(names: list[str], tokens: int) -> dict[str, ScorerPress]:
    """The methods for a prompt of so many tokens, by the names that they have in the table."""
    made: dict[str, ScorerPress] = {}
    if "snapkv" in names:
        for budget in BUDGETS:
            made[f"kvpress SnapKVPress(budget={budget})"] = SnapKVPress(1 - budget, WINDOW, KERNEL)
    if "streamingllm" in names:
        for window in WINDOWS:
            # It is told a share, of which it keeps whole tokens: the half keeps rounding from taking one away.
            share = min(1.0, (window + SINKS + 0.5) / tokens)
            made[f"kvpress StreamingLLMPress(window={window})"] = StreamingLLMPress(1 - share, SINKS)
    return made


def answers(
    model: Any, tokenizer: Any, question: dict[str, Any], methods: dict[str, ScorerPress]
) -> list[dict[str, Any]]:
    """Each method's answer to one prompt, the full cache's among them."""
    ids = torch.tensor([question["ids"]])
    press = Several(methods)
    with press(model):
        logits = model(input_ids=ids, past_key_values=DynamicCache(), logits_to_keep=1).logits
    first = int(logits[0, -1].argmax())
    told = []
    for name, kept in press.kept.items():
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(kept):
            cache.update(keys, values, layer)
        text = grown(model, tokenizer, cache, first, len(question["ids"]), question)
        size = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
        told.append({"policy": "kvpress full" if name == "full" else name, "text": text, "kv_bytes": size})
    return told


def grown(model: Any, tokenizer: Any, cache: Any, token: int, position: int, question: dict[str, Any]) -> str:
    """The greedy answer from `token` on, which stands at `position`; it ends where a Longreach engine's does."""
    output: list[int] = []
    while token not in question["ends"]:
        output.append(token)
        text = str(tokenizer.decode(output, skip_special_tokens=True))
        cut = min((text.index(stop) for stop in STOPS if stop in text), default=None)
        if cut is not None:
            return text[:cut]
        if len(output) == question["max_tokens"]:
            break
        step = model(input_ids=torch.tensor([[token]]), past_key_values=cache, position_ids=torch.tensor([[position]]))
        token, position = int(step.logits[0, -1].argmax()), position + 1
    return str(tokenizer.decode(output, skip_special_tokens=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="what frontier.py --dump wrote")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--presses", nargs="+", choices=PRESSES, default=list(PRESSES))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further example after these")
    given = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(given.folder / "model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.folder / "model")
    done: list[dict[str, Any]] = json.loads(given.json.read_text())["answers"] if given.json.exists() else []
    known = {(line["task"], line["example"], line["question"]) for line in done}
    versions = {name: importlib.metadata.version(name) for name in ("kvpress", "transformers", "torch")}
    began = time.perf_counter()
    for raw in (given.folder / "examples.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(raw)
        key = {name: question[name] for name in ("task", "example", "question")}
        if tuple(key.values()) in known:
            continue
        if time.perf_counter() - began > given.seconds:
            break
        with torch.inference_mode():
            methods = presses(given.presses, len(question["ids"]))
            done += [{**key, **told} for told in answers(model, tokenizer, question, methods)]
        told = {"versions": versions, "dtype": "float32", "window": WINDOW, "kernel": KERNEL, "answers": done}
        fresh = given.json.with_suffix(".partial")
        fresh.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        fresh.replace(given.json)
    print(f"{len(done)} answers in {given.json}")


if __name__ == "__main__":
    main()
