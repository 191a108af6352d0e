"""The Triton kernels equal the definition; on a machine without a GPU, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attention import slow
from longreach.attention.tables import Pages, References, Turns
from longreach.attention.tuning import PrefillTuning, splits
from longreach.errors import UnsupportedError
from longreach.kv import int4
from longreach.kv.coding import CODINGS, name_of, parts_of
from longreach.kv.pool import EMPTY, PagePool

SMALL = PrefillTuning(rows=16, entries=64, warps=4, stages=2, resident=1)

SHAPES: list[dict[str, Any]] = [
    {},
    {"ordered": True, "slots": 1},
    {"ordered": True, "slots": 2, "width": 12},
    {"group": 1, "slots": 1},
    {"group": 3, "dim": 8, "value_dim": 8},
    {"group": 4, "dim": 24, "value_dim": 40, "pairs": 8},
    {"group": 8, "heads": 1, "page": 32},
    {"page": 64, "dim": 64, "value_dim": 64, "width": 3},
    {"page": 64, "dim": 128, "value_dim": 128, "width": 3, "dtype": torch.bfloat16},
    {"page": 16, "dim": 64, "value_dim": 64, "dtype": torch.bfloat16},
    {"page": 32, "dtype": torch.float16},
    *({"coded": kept} for kept in CODINGS),
    *({"coded": kept, "group": 4, "dim": 24, "value_dim": 40, "pairs": 8} for kept in CODINGS),
    *({"coded": kept, "dim": 48, "value_dim": 20, "slots": 1} for kept in CODINGS),
    *({"coded": kept, "page": 64, "dim": 64, "value_dim": 64, "width": 3, "dtype": torch.bfloat16} for kept in CODINGS),
]
SCORES: list[dict[str, Any]] = [{}, {"window": 30}, {"softcap": 5.0}, {"window": 17, "softcap": 2.0}]


CASES = [(shape, SCORES[i % len(SCORES)]) for i, shape in enumerate(SHAPES)] + [({}, scores) for scores in SCORES[1:]]


def _name(values: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in values.items()) or "plain"


@pytest.fixture(scope="session")
def decode(kernels: Any) -> Any:
    return kernels("decode").decode


@pytest.fixture(scope="session")
def prefill(kernels: Any) -> Any:
    return kernels("prefill").prefill


def _on(case: Any, device: str) -> Any:
    def moved(values: Any) -> Any:
        # References stay views of something larger on the device too.
        every = [getattr(values, name) for name in values.__dataclass_fields__]
        return type(values)(*(None if one is None else _kept(one, device) for one in every))

    case = replace(case)
    case.pages, case.references, case.turns = (moved(x) for x in (case.pages, case.references, case.turns))
    case.query, case.position, case.starts = (x.to(device) for x in (case.query, case.position, case.starts))
    return case


def _kept(tensor: torch.Tensor, device: str) -> torch.Tensor:
    if tensor.is_contiguous():
        return tensor.to(device)
    base = tensor._base
    assert base is not None
    return base.to(device).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _equal(
    got: tuple[torch.Tensor, torch.Tensor], wanted: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype
) -> None:
    near = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    output, lse = (x.cpu().double() for x in got)
    assert got[0].dtype == dtype
    assert got[1].dtype == torch.float32
    torch.testing.assert_close(output, wanted[0], atol=near, rtol=near)
    torch.testing.assert_close(lse, wanted[1], atol=near, rtol=near)


@pytest.mark.thorough
@pytest.mark.parametrize(("shape", "scores"), CASES, ids=_name)
def test_decode_equals_the_definition(shape: dict[str, Any], scores: dict[str, Any], decode: Any, device: str) -> None:
    case = slow.Case([1, 1], **shape)
    on = _on(case, device)
    scale = case.dim**-0.5
    for parts in (1, 3):
        got = decode(on.query, on.position, on.pages, on.references, on.turns, scale=scale, parts=parts, **scores)
        _equal(got, slow.attend(case, scale, **scores), case.dtype)


@pytest.mark.thorough
@pytest.mark.parametrize(("shape", "scores"), CASES, ids=_name)
def test_prefill_equals_the_definition(
    shape: dict[str, Any], scores: dict[str, Any], prefill: Any, device: str
) -> None:
    case = slow.Case([2, 0, 9], **shape)
    on = _on(case, device)
    scale = case.dim**-0.5
    wanted = slow.attend(case, scale, **scores)
    for parts, tuning in ((1, None), (2, SMALL)):
        got = prefill(
            on.query, on.position, on.starts, on.pages, on.references, on.turns, scale=scale, parts=parts,
            tuning=tuning, **scores,
        )  # fmt: skip
        _equal(got, wanted, case.dtype)


@pytest.mark.thorough
def test_a_prefill_of_one_token_each_is_a_decode(decode: Any, prefill: Any, device: str) -> None:
    case = _on(slow.Case([1, 1, 1], width=2), device)
    common = (case.pages, case.references, case.turns)
    one = decode(case.query, case.position, *common, scale=0.3, parts=1)
    other = prefill(case.query, case.position, case.starts, *common, scale=0.3, parts=1)
    torch.testing.assert_close(one, other)


def test_who_sees_nothing_gets_zero_and_minus_infinity(decode: Any, prefill: Any, device: str) -> None:
    case = _on(slow.Case([1], width=2), device)
    case.position[:] = -100
    for parts in (1, 2):
        outs = [
            decode(case.query, case.position, case.pages, case.references, case.turns, scale=0.3, parts=parts),
            prefill(
                case.query, case.position, case.starts, case.pages, case.references, case.turns, scale=0.3, parts=parts
            ),
        ]
        for output, lse in outs:
            assert not output.any()
            assert torch.isneginf(lse).all()


@pytest.mark.parametrize("scale", [0.125, 0.0883883, 0.3])
def test_a_token_that_sees_nothing_at_first_sees_what_comes_then(prefill: Any, device: str, scale: float) -> None:
    case = slow.Case([6], heads=1, width=16, dim=64, value_dim=64, ordered=True)
    on = _on(case, device)
    for each in (case, on):  # what comes first in the tables is for the last three tokens alone
        early = each.references.pages[0, :, :8].reshape(-1).long()
        each.pages.positions[early] += 5000
        each.position[:] = torch.tensor([400, 410, 420, 9000, 9001, 9002], dtype=torch.int32)
    got = prefill(
        on.query, on.position, on.starts, on.pages, on.references, on.turns, scale=scale, parts=1, tuning=SMALL
    )
    _equal(got, slow.attend(case, scale), case.dtype)


def test_an_entry_that_was_not_written_is_never_seen_wherever_its_page_is_shifted(decode: Any, device: str) -> None:
    case = _on(slow.Case([1], heads=1, width=1, slots=2), device)
    case.pages.positions[:] = EMPTY
    case.references.slots[:] = 1
    for shift in (-50, 50):
        case.turns.shifts[:, 1] = shift
        _, lse = decode(case.query, case.position, case.pages, case.references, case.turns, scale=0.3, parts=1)
        assert torch.isneginf(lse).all()


@pytest.mark.thorough
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
    heads=st.integers(1, 3),
    group=st.sampled_from([1, 2, 3, 4, 8]),
    page=st.sampled_from([16, 32, 64]),
    width=st.integers(1, 9),
    slots=st.integers(1, 4),
    window=st.none() | st.integers(1, 200),
    ordered=st.booleans(),
    parts=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_any_tables_prefill_alike(
    lengths: list[int],
    heads: int,
    group: int,
    page: int,
    width: int,
    slots: int,
    window: int | None,
    ordered: bool,
    parts: int,
    seed: int,
    prefill: Any,
    device: str,
) -> None:
    case = slow.Case(
        lengths,
        heads=heads,
        group=group,
        page=page,
        width=width,
        slots=slots,
        ordered=ordered,
        seed=seed,
        dim=8,
        value_dim=8,
    )
    on = _on(case, device)
    got = prefill(
        on.query, on.position, on.starts, on.pages, on.references, on.turns, scale=0.4, window=window, parts=parts,
        tuning=SMALL,
    )  # fmt: skip
    _equal(got, slow.attend(case, 0.4, window), case.dtype)


@pytest.mark.parametrize("heads", [3, 1])
@pytest.mark.parametrize("kept", [torch.float32, *CODINGS], ids=name_of)
def test_written_tokens_are_found_where_they_were_put(kernels: Any, device: str, kept: torch.dtype, heads: int) -> None:
    module = kernels("write")
    tokens, dim, value_dim, page = 5, 8, 12, 16
    pool = PagePool(9, page, dim, dtype=kept, device=device, value_dim=value_dim)
    pool.positions[:] = EMPTY
    pages = Pages.of(pool)
    both = torch.randn(tokens, heads * (dim + value_dim), device=device)
    key, value = both[:, : heads * dim].view(tokens, heads, dim), both[:, heads * dim :].view(tokens, heads, value_dim)
    if heads == 1:  # as a model leaves them that turns heads and tokens
        key, value = (side.transpose(0, 1).contiguous().transpose(0, 1) for side in (key, value))
    entries = torch.tensor([3, 4, 5, 0, 1], dtype=torch.int32, device=device)
    target = (
        torch.stack([torch.tensor([t % 2 * 3, 1 + t % 2 * 3, 2 + t % 2 * 3]) for t in range(tokens)]).int().to(device)
    )
    target = target[:, :heads]
    target[4, heads - 1] = -1
    position = torch.arange(100, 100 + tokens, dtype=torch.int32, device=device)
    module.write(module.rows_of(key), module.rows_of(value), position, target, entries, pages)
    for t in range(tokens):
        for h in range(heads):
            if target[t, h] >= 0:
                place = int(target[t, h]), int(entries[t])
                wanted = parts_of(key[t, h], value[t, h], kept)
                assert all(torch.equal(x[place], one) for x, one in zip(pool.stored, wanted, strict=True))
                assert pages.positions[place] == position[t]
    assert int((pages.positions != EMPTY).sum()) == tokens * heads - 1


@pytest.mark.thorough
@pytest.mark.parametrize("coded", [None, *CODINGS])
def test_no_entry_scores_above_its_pages_bound(kernels: Any, device: str, coded: torch.dtype | None) -> None:
    module = kernels("bounds")
    case = slow.Case([1, 1], width=3, coded=coded)
    on = _on(case, device)
    bounds = torch.zeros(len(case.pages.keys), 2, case.dim, device=device)
    module.bound(on.pages, torch.arange(len(bounds), dtype=torch.int32, device=device), bounds)
    scores = module.score(on.query, on.pages, bounds, on.references, on.turns).cpu()
    written = case.pages.positions != EMPTY
    least = case.keys.masked_fill(~written[..., None], torch.inf).amin(1)
    if coded == int4.CODES:  # spread back, in another order
        torch.testing.assert_close(bounds[:, 0].cpu(), least)
    else:
        assert torch.equal(bounds[:, 0].cpu(), least)
    for s in range(2):
        for h in range(case.heads):
            count = int(case.references.counts[s, h])
            own = scores[s, h]
            assert torch.isneginf(own[count:]).all()
            for n in range(count):
                page, slot = int(case.references.pages[s, h, n]), int(case.references.slots[s, h, n])
                cos, sin = case.turns.cosines[s, slot], case.turns.sines[s, slot]
                q1, q2 = case.query[s, h * case.group : (h + 1) * case.group].chunk(2, -1)
                turned = torch.cat([q1 * cos + q2 * sin, q2 * cos - q1 * sin], -1)
                products = turned @ case.keys[page][written[page]].T
                assert (products <= own[n] + 1e-4).all()
                low, high = bounds[page].cpu()
                torch.testing.assert_close(own[n], torch.maximum(turned * low, turned * high).sum(-1).amax())


@pytest.mark.thorough
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_pages_with_the_greatest_bounds_are_selected_in_their_order(
    kernels: Any, device: str, data: st.DataObject
) -> None:
    select = kernels("select").select
    width, most = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    counts = torch.tensor(data.draw(st.lists(st.integers(0, width), min_size=4, max_size=4))).view(2, 2).int()
    wanted = torch.tensor(data.draw(st.lists(st.integers(1, most), min_size=2, max_size=2))).int()
    few = st.sampled_from([-3.5, -1.0, -2e-20, 2e-20, 2.25, 1e30, -1e30])  # many are equal
    scores = torch.tensor(data.draw(st.lists(few, min_size=4 * width, max_size=4 * width))).view(2, 2, width)
    pages = torch.randperm(4 * width).view(2, 2, width).int()
    references = References(pages, pages + 1, pages.long() + 2, counts)
    on = References(*(x.to(device) for x in _fields(references)))
    found = select(scores.to(device), on, wanted.to(device), most)
    for s in range(2):
        for h in range(2):
            count = int(counts[s, h])
            ranked = sorted(range(count), key=lambda n: (n != count - 1, -float(scores[s, h, n]), n))
            best = torch.tensor(sorted(ranked[: int(wanted[s])]), dtype=torch.long)
            n = int(found.counts[s, h])
            assert n == len(best)
            for got, of in zip(_fields(found), _fields(references)[:3], strict=False):
                assert torch.equal(got[s, h, :n].cpu(), of[s, h, best])


def test_what_kernels_cannot_read_is_refused_in_a_sentence(decode: Any) -> None:
    case = slow.Case([1])
    odd = References(*(x.transpose(1, 2) if x.dim() == 3 else x for x in _fields(case.references)))
    large = Pages(case.pages.keys[:, :10], case.pages.values[:, :10], case.pages.positions[:, :10])
    apart = Turns(case.turns.cosines.expand(2, -1, -1, -1)[:, 0], case.turns.sines, case.turns.shifts.T)
    for pages, references, turns in (
        (large, case.references, case.turns),
        (case.pages, odd, case.turns),
        (case.pages, case.references, apart),
    ):
        with pytest.raises(UnsupportedError):
            decode(case.query, case.position, pages, references, turns, scale=1.0)


def _fields(values: Any) -> list[torch.Tensor]:
    return [getattr(values, name) for name in values.__dataclass_fields__]


@given(st.integers(0, 2000), st.integers(0, 4096), st.integers(1, 2000))
def test_streams_are_never_cut_finer_than_their_pages(streams: int, references: int, slots: int) -> None:
    assert 1 <= splits(streams, references, slots) <= max(1, references)
