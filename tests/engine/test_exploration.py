from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.engine import ROOT
from longreach.engine.paged import PagedEngine
from longreach.errors import InputError, PromptTooLongError

STORY = "Once upon a time, there was a little girl named Lily. She loved to play"


def log_probs(original: Any, ids: list[int]) -> torch.Tensor:
    """By transformers, each path alone and without a cache."""
    with torch.inference_mode():
        logits = original(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits, dim=-1)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_node_of_a_random_tree_equals_its_path_alone(
    storyteller: PagedEngine, original: Any, data: st.DataObject
) -> None:
    prompt = data.draw(st.lists(st.integers(3, 511), min_size=1, max_size=30))
    exploration = storyteller.explore(prompt)
    assert torch.allclose(exploration.root, log_probs(original, prompt), atol=1e-4)
    paths: list[list[int]] = []
    for size in data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=4)):
        nodes = []
        for _ in range(size):
            parent = data.draw(st.integers(ROOT, len(paths) - 1))
            token = data.draw(st.integers(0, 511))
            nodes.append((parent, token))
            paths.append([*(paths[parent] if parent != ROOT else []), token])
        ids, found = exploration.expand(nodes)
        assert ids == list(range(len(paths) - size, len(paths)))
        assert found.shape == (size, 512)
        for node, row in zip(ids, found, strict=True):
            assert torch.allclose(row, log_probs(original, prompt + paths[node]), atol=1e-4)
    assert len(exploration) == len(paths)


def test_many_nodes_at_once_are_as_each_alone(storyteller: PagedEngine, original: Any) -> None:
    exploration = storyteller.explore(STORY)
    prompt = storyteller.encode(STORY)
    nodes, found = exploration.expand([(ROOT, token) for token in range(100)])
    assert nodes == list(range(100))
    for node in (0, 57, 99):
        assert torch.allclose(found[node], log_probs(original, [*prompt, node]), atol=1e-4)


def test_an_exploration_leaves_the_kept_prompt_as_it_was(storyteller: PagedEngine, original: Any) -> None:
    engine = PagedEngine(storyteller.loaded, kv_bytes=32 << 20)
    want = engine.generate([STORY], max_tokens=20)[0].token_ids
    exploration = engine.explore(STORY)
    assert exploration.reused_tokens == exploration.prompt_tokens - 1
    exploration.expand([(ROOT, 40), (0, 41), (ROOT, 42)])
    got = engine.generate([STORY], max_tokens=20)[0]
    assert got.token_ids == want
    _, after = exploration.expand([(1, 43)])
    prompt = engine.encode(STORY)
    assert torch.allclose(after[0], log_probs(original, [*prompt, 40, 41, 43]), atol=1e-4)


@pytest.mark.parametrize("node", [(0, 5), (-2, 5), (ROOT, 512), (ROOT, -1)])
def test_nodes_that_cannot_be_are_refused_and_change_nothing(storyteller: PagedEngine, node: tuple[int, int]) -> None:
    exploration = storyteller.explore("The cat")
    with pytest.raises(InputError):
        exploration.expand([node])
    assert len(exploration) == 0
    assert exploration.expand([(ROOT, 5)])[0] == [0]


def test_a_path_past_the_context_is_refused(storyteller: PagedEngine) -> None:
    exploration = storyteller.explore([5] * 510)
    exploration.expand([(ROOT, 6), (0, 7)])
    with pytest.raises(PromptTooLongError):
        exploration.expand([(1, 8)])
