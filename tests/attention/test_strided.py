"""One token's attention on a processor, in its few operations, is attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.attention import strided_step
from longreach.attention.attend import Scores
from longreach.attention.numba_step import NumbaStep
from longreach.attention.rotation import Rotation
from longreach.attention.step import Step, begin
from longreach.attention.strided_step import StridedStep
from longreach.kv.coding import CODINGS, numbers_of, parts_of
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence

DIM, SCALE = 32, 0.2


def by_definition(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.float().repeat_interleave(group, 1) for x in (keys, values))
    logits = torch.einsum("thd,ehd->the", query, keys) * SCALE
    return torch.einsum("the,ehd->thd", logits.softmax(-1), values), logits.logsumexp(-1)


def kept(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Of keys and values `[2, ..]` the numbers that pages in `dtype` have."""
    if dtype not in CODINGS:
        return x.to(dtype).float()
    return torch.stack(numbers_of(parts_of(*x, dtype)))


@pytest.mark.parametrize("kind", [StridedStep, NumbaStep])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.uint8])
@pytest.mark.parametrize("cache", [1, 1 << 20])
@given(heads=st.integers(1, 5), group=st.integers(1, 4), lengths=st.lists(st.integers(1, 20), min_size=1, max_size=3))
@settings(max_examples=8, deadline=None)
def test_a_token_sees_all_that_was_written_before_it_and_itself(
    kind: type[Step], dtype: torch.dtype, cache: int, heads: int, group: int, lengths: list[int]
) -> None:
    made = torch.Generator().manual_seed(heads)
    pool = PagePool(400, 4, DIM, dtype=dtype)
    sequence, other = (Sequence(pool, 1, heads) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strided_step, "CACHE", cache)
        patch.setattr(torch, "get_num_threads", lambda: 2)
        written = []
        for length in lengths:
            sequence.reserve(length)
            other.reserve(3)  # what comes next lies elsewhere
            for _ in range(length):
                query = torch.randn(1, heads * group, DIM, generator=made)
                key, value = kept(torch.randn(2, 1, heads, DIM, generator=made), dtype)
                written.append((key, value))
                step = kind(pool, [Rotation.none()], begin([(sequence, [7])]))
                output, lse = step.attend(0, query, key, value, Scores(SCALE))
                keys, values = (torch.cat([pair[at] for pair in written]) for at in range(2))
                wanted = by_definition(query.bfloat16().float() if dtype == torch.bfloat16 else query, keys, values)
                bound = 2e-2 if dtype == torch.bfloat16 else 1e-5
                assert output.dtype == query.dtype
                torch.testing.assert_close(output, wanted[0], atol=bound, rtol=bound)
                torch.testing.assert_close(lse, wanted[1], atol=bound, rtol=bound)
