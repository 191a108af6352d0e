"""What a captured step computes, computed step by step: with the kernels interpreted and nothing captured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from families import exact, fresh
from longreach.engine import decode_graph, decode_share, runner
from longreach.engine.paged import PagedEngine
from longreach.engine.requests import Part, Sampling
from longreach.kv.codec import make
from longreach.kv.reuse import reuses
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.model.load import LoadedModel


class Uncaptured:
    """Stands in for a graph: computes anew what it would replay."""

    def __init__(self, *given: Any) -> None:
        self._step = decode_graph._GraphStep(*given)
        self.graph = self
        self.logits, self.chosen = (
            self._step.run()
        )  # as the capture does, which may write what the step itself will write

    def replay(self) -> None:
        self.logits, self.chosen = self._step.run()


@pytest.fixture
def graphs(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines run as on a GPU, but for what is captured."""
    from longreach.attention.triton_step import TritonStep

    monkeypatch.setattr(decode_graph, "_Graph", Uncaptured)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(runner, "_forms", lambda bridge, pool: (TritonStep, decode_graph.DecodeGraphs(bridge, pool)))


def _engine() -> PagedEngine:
    model = fresh("llama")
    loaded = LoadedModel("tiny", model, Letters(), frozenset(), "", 512, torch.device("cpu"), torch.float32, 0)
    return PagedEngine(loaded, kv_bytes=4 << 20, page_size=16)


@pytest.mark.thorough
def test_steps_from_buffers_write_what_transformers_writes(graphs: None) -> None:
    """Sequences that grow over pages, join and leave, and whose tables outgrow their room."""
    engine = _engine()
    prompts = [[5 + at, 7, 11, *range(3, 3 + 9 * at)] for at in range(4)]
    streams = [engine.start(prompt, Sampling(max_tokens=6 + 4 * at)) for at, prompt in enumerate(prompts)]
    for at, (prompt, stream) in enumerate(zip(prompts, streams, strict=True)):
        given = torch.tensor([prompt])
        options = {"max_new_tokens": 6 + 4 * at, "do_sample": False, "attention_mask": torch.ones_like(given)}
        assert list(stream.finish().token_ids) == exact("llama").generate(given, **options)[0, len(prompt) :].tolist()


@pytest.mark.thorough
def test_a_caller_that_leaves_while_the_next_step_has_begun_disturbs_nobody(graphs: None) -> None:
    engine = _engine()
    alone = engine.generate([list(range(3, 30))], max_tokens=12)[0].token_ids
    staying, leaving = (engine.start(prompt, Sampling(max_tokens=12)) for prompt in (list(range(3, 30)), [9, 8, 7]))
    for _ in range(5):
        next(staying)
    leaving.cancel()
    assert staying.finish().token_ids == alone
    assert engine.scheduler.prefix is not None
    engine.scheduler.prefix.evict(len(engine.pool))
    assert engine.pool.used == 0
    engine.pool.check()


@pytest.mark.thorough
@pytest.mark.parametrize("budget", [16, 48, 4096])
def test_kernels_select_the_pages_that_the_policy_selects(
    budget: int, graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone in a graph, and beside a request that reads everything."""
    policy, prompt = f"page_select(budget={budget})", list(range(3, 93))
    found = [_engine().start(prompt, Sampling(max_tokens=10), policy=policy).finish().token_ids]
    engine = _engine()
    beside = engine.start([5, 6, 7], Sampling(max_tokens=14))
    found.append(engine.start(prompt, Sampling(max_tokens=10), policy=policy).finish().token_ids)
    beside.cancel()
    monkeypatch.undo()
    wanted = _engine().start(prompt, Sampling(max_tokens=10), policy=policy).finish().token_ids
    assert found == [wanted, wanted]


def _answers(folder: Path, method: str) -> list[list[float]]:
    """Log-probabilities of what is written, to a prompt whose passages are reused by `method` and to one beside it."""
    engine = _engine()
    codec = Named("raw", make("raw"))
    engine.keep_passages(KVStore.open(folder, fingerprint="x", codec=codec, host_bytes=1 << 20, disk_bytes=1 << 20))
    assert engine.passages is not None
    engine.passages.read_behind([4 + at * 11 % 90 for at in range(12)] if "cache_craft" in method else [])
    engine.passages.repair_by(reuses.make(method))
    texts = [[3 + at * step % 90 for at in range(size)] for step, size in ((7, 9), (11, 21), (13, 18), (17, 5))]
    parts = [Part(tuple(text), passage=0 < at < 3) for at, text in enumerate(texts)]
    sampling = Sampling(max_tokens=4, logit_bias={5: 100.0}, logprobs=0)
    streams = [engine.start(prompt, sampling) for prompt in (parts, [9, 8, 7])]
    found = [[one.chosen.logprob for one in stream.finish().logprobs] for stream in streams]
    engine.forget()
    assert engine.pool.used == 0
    return found


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method", ["ape(temperature=0.7, scale=0.8)", "cacheblend(share=0.4)", "cache_craft(share=0.4)"]
)
def test_passages_are_reused_as_without_kernels(
    method: str, graphs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _answers(tmp_path / "kernels", method)
    monkeypatch.undo()
    for one, other in zip(found, _answers(tmp_path / "plain", method), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.thorough
def test_what_sequences_share_is_read_once_and_the_same_is_written(
    graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of one prompt that come, leave and grow over pages, beside a text of its own; a conversation goes on."""
    prompt, other = [3 + at * 7 % 90 for at in range(75)], [9, 8, 7]
    alone, beside = (_engine().generate([ids], max_tokens=8)[0].token_ids for ids in (prompt, other))
    monkeypatch.setattr(decode_share, "WORTH", 16)
    find, groups = decode_graph.group_of, []

    def noted(rows: Any, worth: int) -> decode_share.Group:
        groups.append(find(rows, worth))
        return groups[-1]

    monkeypatch.setattr(decode_graph, "group_of", noted)
    engine = _engine()
    engine.generate([prompt], max_tokens=1)
    streams = [engine.start(other, Sampling(max_tokens=8))]
    streams += [engine.start(prompt, Sampling(max_tokens=count, n=2)) for count in (8, 4)]
    done = [stream.finish() for stream in streams]
    assert done[0].token_ids == beside
    for one, count in zip(done[1:], (8, 4), strict=True):
        assert [sample.token_ids for sample in one.samples] == [alone[:count]] * 2
    assert decode_share.Group((1, 2, 3, 4), 4) in groups
    groups.clear()
    longer = [*prompt, *alone[:-1]]
    more = [engine.start([*longer, token], Sampling(max_tokens=4)) for token in (5, 6)]
    answers = [stream.finish().token_ids for stream in more]
    assert decode_share.Group((0, 1), len(longer) // 16) in groups
    monkeypatch.undo()
    assert answers == [_engine().generate([[*longer, token]], max_tokens=4)[0].token_ids for token in (5, 6)]


class Letters:
    """Stands in for a tokenizer."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 97 for letter in text]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "x" * len(ids)
