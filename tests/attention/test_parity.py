"""Every family through the bridge gives the logits of transformers' own attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attention.steps import TOLERANCE, bridge_of, pool_of, read, sequence_of, tokens
from families import CONFIGS, NOT_RELOCATABLE, exact, fresh
from longreach.attention.numba_step import NumbaStep
from longreach.attention.plain_step import PlainStep
from longreach.attention.step import Step
from longreach.attention.strided_step import StridedStep
from longreach.kv.coding import CODINGS, name_of
from longreach.kv.compact import drop
from longreach.model.bridge import Bridge

STEPS: list[type[Step]] = [PlainStep, StridedStep, NumbaStep]


def wanted(family: str, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = exact(family)(ids[None]).logits[0]
    return logits


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("family", CONFIGS)
def test_prefill_whole_and_in_chunks_and_decode_equal_transformers(family: str, kind: type[Step]) -> None:
    bridge, ids = bridge_of(family), tokens(60, 1)
    expected = wanted(family, ids)
    for cuts in ([60], [17, 20, 1, 1, 21], [1] * 20 + [40]):
        sequence = sequence_of(bridge, pool_of(bridge))
        found = [read(bridge, kind, [(sequence, part)])[0] for part in ids.split(cuts)]
        assert (torch.cat(found) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(("kept", "most"), [(torch.int8, 0.01), (torch.uint8, 0.2)], ids=name_of)
def test_pages_of_few_bits_change_logits_by_no_more_than_documented(
    family: str, kind: type[Step], kept: torch.dtype, most: float
) -> None:
    bridge, ids = bridge_of(family), tokens(60, 1)
    expected = wanted(family, ids)
    for cuts in ([60], [17, 20, 1, 1, 21], [1] * 20 + [40]):
        sequence = sequence_of(bridge, pool_of(bridge, dtype=kept))
        found = torch.cat([read(bridge, kind, [(sequence, part)])[0] for part in ids.split(cuts)])
        off = (found - expected) / expected.std()
        assert 0 < off.abs().max() < 10 * most
        assert off.std() < most


@pytest.mark.parametrize("kind", STEPS[1:])
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kept", CODINGS, ids=name_of)
def test_token_by_token_pages_of_few_bits_are_read_as_they_are_defined(
    family: str, kind: type[Step], kept: torch.dtype
) -> None:
    """Chunks are not: what their tokens see of each other, a processor's steps do not read back. Where a number lies
    amid two codes, the last bit of what is computed decides: then some logits are a code apart."""
    bridge, ids, found = bridge_of(family), tokens(30, 1), []
    for one in (PlainStep, kind):
        sequence = sequence_of(bridge, pool_of(bridge, dtype=kept))
        found.append(torch.cat([read(bridge, one, [(sequence, part)])[0] for part in ids.split(1)]))
    assert (found[0] - found[1]).abs().max() < 100 * TOLERANCE
    assert (found[0] - found[1]).abs().median() < TOLERANCE


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_batch_of_mixed_lengths_equals_each_alone(family: str, kind: type[Step]) -> None:
    bridge = bridge_of(family)
    pool = pool_of(bridge)
    prompts = [tokens(n, n) for n in (40, 1, 23, 5)]
    sequences = [sequence_of(bridge, pool) for _ in prompts]
    first = [p[: max(1, len(p) // 2)] for p in prompts]
    rest = [p[max(1, len(p) // 2) :] for p in prompts]
    begun = read(bridge, kind, list(zip(sequences, first, strict=True)))
    later = iter(read(bridge, kind, [(s, r) for s, r in zip(sequences, rest, strict=True) if len(r)]))
    for prompt, start, end in zip(prompts, begun, rest, strict=True):
        found = torch.cat([start, next(later)]) if len(end) else start
        assert (found - wanted(family, prompt)).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("family", [f for f in CONFIGS if f not in NOT_RELOCATABLE])
def test_a_moved_segment_equals_reading_it_where_it_is_used(family: str, kind: type[Step]) -> None:
    """A segment read at positions 0.. and used at 50.. gives what reading it at 50.. alone gives."""
    bridge, passage, question = bridge_of(family), tokens(30, 2), tokens(9, 3)
    pool = pool_of(bridge)
    moved, there = sequence_of(bridge, pool), sequence_of(bridge, pool)
    source = sequence_of(bridge, pool)
    read(bridge, kind, [(source, passage)])
    segment = source.share(len(passage))[0]
    segment.shift = 50
    moved.add(segment)
    there.position = 50
    read(bridge, kind, [(there, passage)])
    assert moved.position == there.position == 80
    one, other = read(bridge, kind, [(moved, question), (there, question)])
    assert (one - other).abs().max() < TOLERANCE
    for token in tokens(3, 4).split(1):
        one, other = read(bridge, kind, [(moved, token), (there, token)])
        assert (one - other).abs().max() < TOLERANCE


@pytest.mark.thorough
@pytest.mark.parametrize("kept", [torch.float32, *CODINGS], ids=name_of)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "smollm3"])
def test_the_kernels_equal_the_definition_in_a_model(family: str, kept: torch.dtype, kernels: Any) -> None:
    """Chunks, decodes of several sequences, moved segments and streams of different lengths, all at once."""
    from longreach.attention.triton_step import TritonStep

    bridge, found = bridge_of(family), []
    for kind in (PlainStep, TritonStep):
        pool = pool_of(bridge, 800, dtype=kept)
        one, other, source = (sequence_of(bridge, pool) for _ in range(3))
        read(bridge, kind, [(source, tokens(21, 2)), (one, tokens(18, 3))])
        segment = source.share(19)[0]
        segment.shift = 40
        other.add(segment)
        drop(one, lambda layer: [torch.arange(layer + head, 18, 2) for head in range(bridge.shapes.kv_heads)])
        logits = read(bridge, kind, [(one, tokens(5, 4)), (other, tokens(1, 5)), (source, tokens(1, 6))])
        logits += read(bridge, kind, [(one, tokens(1, 7)), (other, tokens(1, 8)), (source, tokens(9, 9))])
        found.append(torch.cat(logits))
    assert (found[0] - found[1]).abs().max() < (TOLERANCE if kept == torch.float32 else 100 * TOLERANCE)
    assert (found[0] - found[1]).abs().median() < TOLERANCE


def test_what_cannot_be_moved_is_detected() -> None:
    assert not bridge_of("gpt2").relocatable
    scaled = fresh("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    assert not Bridge(scaled).relocatable


def test_layers_without_positions_are_found() -> None:
    pairs = [len(rotation.frequencies) for rotation in bridge_of("smollm3").rotations]
    assert pairs == [4, 0, 4]
    partial = bridge_of("gpt_neox").rotations
    assert [len(rotation.frequencies) for rotation in partial] == [1, 1, 1]
