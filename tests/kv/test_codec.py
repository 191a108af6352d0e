"""Every codec: what it writes is read back within its documented error, and nothing else is read as if it were."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longreach.attention.rotation import Rotation
from longreach.errors import InputError, ModelError, SpecError
from longreach.kv import int4, int8
from longreach.kv.codec import (
    CodecError,
    Profile,
    Sensitivity,
    cachegen,
    codecs,
    decode,
    entropy,
    frame,
    grouped,
    int4_pages,
    int8_pages,
    make,
    open_any,
    steps,
    takes_profile,
)
from longreach.kv.codec.fisher import LEVELS
from longreach.kv.codec.ladder_fit import Ladder, fit
from longreach.kv.codec.rows import to_rows
from longreach.kv.codec.upright import turn_back, turn_forth
from longreach.kv.hadamard import block_of, spread
from longreach.registry import canonical

ROTATION = Rotation(torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64))
SPECS = {
    "raw": ["raw"],
    "int8": ["int8", "int8(group=7)"],
    "int4": ["int4", "int4(group=5)"],
    "int8_pages": ["int8_pages"],
    "int4_pages": ["int4_pages"],
    "cachegen": ["cachegen", "cachegen(level=0, group=3)", "cachegen(level=4, group=1)"],
    "fisher": ["fisher", "fisher(level=0)", "fisher(level=4)"],
    "ladder": ["ladder", "ladder(level=0)", "ladder(level=4)"],
}
ALL = [spec for specs in SPECS.values() for spec in specs]
LOSSY = [spec for spec in ALL if spec != "raw"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


WEIGHTS = Sensitivity(
    "model", torch.arange(1.0, 65).view(4, 2, 8) * 1e-7, torch.arange(48.0, 0, -1).view(4, 2, 6) * 1e-7
)
TURNS = [ROTATION] * 3 + [Rotation.none()]


@cache
def ladder() -> Ladder:
    return fit([(*kv(90, seed=seed), seed) for seed in range(3)], TURNS, WEIGHTS)


def codec(spec: str, *, measured: bool = False) -> Any:
    return make(spec, rotations=TURNS, sensitivity=WEIGHTS if measured else None, ladder=ladder())


def read(data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    return decode(data, ladder=ladder())


def kv(
    tokens: int, dtype: torch.dtype = torch.float32, layers: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys of 8 channels that differ in size and middle, and values of 6."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(layers, 2, tokens, 8, generator=generator) * torch.logspace(-1, 1, 8) + torch.arange(8.0)
    values = torch.randn(layers, 2, tokens, 6, generator=generator)
    return keys.to(dtype), values.to(dtype)


def bound(method: Any, keys: torch.Tensor, values: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The documented error of each element, before the rounding of the dtype."""
    keys, values = keys.float(), values.float()
    if isinstance(method, grouped.Grouped):
        sides = []
        for x, dim in ((keys, 2), (values, 3)):
            parts = []
            for part in x.split(method.group, dim):
                low, high = part.amin(dim, keepdim=True), part.amax(dim, keepdim=True)
                slack = 2**-10 * torch.maximum(low.abs(), high.abs())
                parts.append(((high - low + slack) / (2**method.bits - 1) * 0.502).expand_as(part))
            sides.append(torch.cat(parts, dim))
        return sides[0], sides[1]
    if isinstance(method, int8_pages.Int8Pages):
        near = [x.abs().amax(-1, keepdim=True) * int8.BOUND + int8.LEAST for x in (keys, values)]
        return near[0].expand_as(keys), near[1].expand_as(values)
    if isinstance(method, int4_pages.Int4Pages):  # each channel is a sum of all, each as far off
        near = [
            spread(x).abs().amax(-1, keepdim=True) * int4.BOUND * block_of(x.shape[-1]) ** 0.5 for x in (keys, values)
        ]
        return near[0].expand_as(keys), near[1].expand_as(values)
    if isinstance(method, cachegen.CacheGen):
        sides = []
        for x in (keys, values):
            found = cachegen.quantise(x, method.group, cachegen.LEVELS[method.level])
            wide = torch.from_numpy(found.steps)[:, None, None, None].expand_as(x).clone()
            scales = torch.from_numpy(found.scales)[:, None, :, None]
            wide[:, :, :: method.group] = scales.expand_as(wide[:, :, :: method.group])
            sides.append(wide * 0.501)
        return sides[0], sides[1]
    if spec_of(method) == "fisher":
        sides = []
        upright = turn_back(keys, method.rotations, start)
        for x, weights in zip((upright, values), method._weights(keys, values), strict=True):
            rows = to_rows(x)
            size = torch.from_numpy(steps.sizes_of(steps.quantise(rows, method._steps(rows, weights)).codes)).float()
            sides.append(size.view(x.shape[0], x.shape[1], 1, x.shape[3]).expand_as(x) * 0.51)
        pairs = torch.cat([(sides[0][..., :3] ** 2 + sides[0][..., 3:6] ** 2).sqrt()] * 2, -1)
        keys_bound = sides[0].clone()
        keys_bound[:-1, ..., :6] = pairs[:-1]
        return keys_bound, sides[1]
    if spec_of(method) == "ladder":
        most = ladder().steps.amax() * LEVELS[method.level] * (2 * (8 + 6)) ** 0.5 * 0.51 * 1.05
        return torch.full_like(keys, float(most)), torch.full_like(values, float(most))
    return torch.zeros_like(keys), torch.zeros_like(values)


def spec_of(method: Any) -> str:
    return canonical(codecs, method).split("(")[0]


def check(method: Any, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> None:
    data = method.encode(keys, values, start)
    for found in (method.decode(data), read(data)):
        for back, x, most in zip(found, (keys, values), bound(method, keys, values, start), strict=True):
            assert back.dtype == x.dtype
            assert back.shape == x.shape
            rounding = 2 * torch.finfo(x.dtype).eps * x.double().abs().amax() + 1e-7
            assert bool(((back.double() - x.double()).abs() <= most.double() + rounding).all())


def test_every_codec_is_in_the_matrix() -> None:
    assert set(codecs.names()) == set(SPECS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 7, 64, 77])
@pytest.mark.parametrize("spec", ALL)
def test_what_is_read_is_what_was_written_within_the_documented_error(
    spec: str, tokens: int, dtype: torch.dtype
) -> None:
    check(codec(spec), *kv(tokens, dtype), start=tokens * 100)


@pytest.mark.parametrize("level", range(5))
def test_fisher_keeps_its_error_with_a_measured_sensitivity(level: int) -> None:
    check(codec(f"fisher(level={level})", measured=True), *kv(33))


def test_raw_gives_back_every_bit() -> None:
    for dtype in [*DTYPES, torch.float64]:
        keys, values = kv(5, dtype)
        keys[0, 0, 0, 0], values[1, 1, 2, 3] = float("nan"), float("-inf")
        for back, x in zip(read(codec("raw").encode(keys, values)), (keys, values), strict=True):
            assert torch.equal(back.view(torch.uint8), x.view(torch.uint8))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 6e4, 1e-6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spec", ALL)
def test_constant_kv_comes_back(spec: str, dtype: torch.dtype, value: float) -> None:
    keys, values = kv(13, dtype)
    check(codec(spec), torch.full_like(keys, value), torch.full_like(values, value))


@pytest.mark.parametrize("spec", LOSSY)
def test_one_enormous_number_harms_no_more_than_documented(spec: str) -> None:
    keys, values = kv(21)
    keys[0, 0, 3, 2], values[1, 1, 4, 5] = 1e6, -1e6
    check(codec(spec), keys, values)
    check(codec(spec, measured=True), keys, values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spec", LOSSY)
def test_the_greatest_numbers_of_a_dtype_stay_finite(spec: str, dtype: torch.dtype) -> None:
    keys, values = kv(12, dtype)
    most = torch.finfo(dtype).max
    keys[1, 0, :, 0], values[1, 0, ::2, 0] = most, -most
    for x in read(codec(spec).encode(keys, values)):
        assert bool(x.isfinite().all())


@pytest.mark.parametrize("spec", LOSSY)
def test_numbers_that_are_none_are_refused(spec: str) -> None:
    keys, values = kv(3)
    values[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        codec(spec).encode(keys, values)


@pytest.mark.parametrize("spec", ALL)
def test_shapes_that_do_not_belong_together_are_refused(spec: str) -> None:
    keys, values = kv(3)
    for wrong in (values[:, :, :2], values.half(), values[0], values[..., :0]):
        with pytest.raises(InputError):
            codec(spec).encode(keys, wrong)


@pytest.mark.parametrize("spec", ALL)
def test_every_damaged_byte_is_noticed(spec: str) -> None:
    data = codec(spec).encode(*kv(9))
    for at in {*range(40), *range(40, len(data), max(1, len(data) // 50)), len(data) - 1}:
        damaged = bytearray(data)
        damaged[at] ^= 0x41
        with pytest.raises(CodecError):
            read(bytes(damaged))
    for short in (b"", data[:3], data[:20], data[:-1], data + b"x"):
        with pytest.raises(CodecError):
            read(short)


@pytest.mark.parametrize("spec", ALL)
def test_parts_that_do_not_fit_are_an_error_even_with_a_right_checksum(spec: str) -> None:
    whole = frame.read(codec(spec).encode(*kv(9)))
    shorter = [part.reshape(-1)[:-1] if part.size else part for part in whole.arrays]
    fields = dict(whole.fields)
    for method, what, arrays in (
        (whole.method, fields, shorter),
        (whole.method, fields, whole.arrays[:-3]),
        (whole.method, fields, []),
        (whole.method, {}, whole.arrays),
        (whole.method, {**fields, "dtype": "int3"}, whole.arrays),
        (whole.method, {**fields, "shapes": [[4, 2, 10, 8], [4, 2, 10, 6]]}, whole.arrays),
        ("sensitivity", fields, whole.arrays),
    ):
        with pytest.raises(CodecError):
            read(frame.write(frame.Frame(method, what, arrays)))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(ALL),
    st.integers(1, 21),
    st.lists(st.integers(0, 4), min_size=2, max_size=2, unique=True).map(sorted),
    st.integers(0, 2**32 - 1),
)
def test_some_layers_of_what_was_opened_are_those_of_what_is_decoded(
    spec: str, tokens: int, cut: list[int], seed: int
) -> None:
    low, end = cut
    keys, values = kv(tokens, seed=seed)
    data = codec(spec).encode(keys, values, 3)
    opened = open_any(data, ladder=ladder())
    assert opened.shapes == (keys.shape, values.shape)
    for some, all_of in zip(opened.layers(low, end), codec(spec).decode(data), strict=True):
        assert torch.equal(some, all_of[low:end])


@pytest.mark.parametrize("spec", ["raw", "int8(group=2)", "int4(group=2)", "int8_pages"])
def test_layers_with_an_odd_number_of_elements_come_apart_too(spec: str) -> None:
    keys, values = torch.randn(5, 1, 3, 5), torch.randn(5, 1, 3, 7)
    opened = make(spec).open(make(spec).encode(keys, values))
    for layer in range(5):
        for some, all_of in zip(opened.layers(layer, layer + 1), opened.whole(), strict=True):
            assert torch.equal(some[0], all_of[layer])


@pytest.mark.parametrize("spec", ALL)
def test_what_is_damaged_is_found_out_when_it_is_opened(spec: str) -> None:
    whole = frame.read(codec(spec).encode(*kv(9)))
    shorter = [part.reshape(-1)[:-1] if part.size else part for part in whole.arrays]
    for arrays in (shorter, whole.arrays[:-3], []):
        with pytest.raises(CodecError):
            open_any(frame.write(frame.Frame(whole.method, whole.fields, arrays)), ladder=ladder())


def test_what_another_codec_wrote_is_not_read() -> None:
    data = codec("int8").encode(*kv(3))
    with pytest.raises(CodecError, match="'int8'"):
        codec("int4").decode(data)


def test_what_a_later_version_wrote_is_not_read() -> None:
    data = bytearray(codec("raw").encode(*kv(3)))
    data[4] += 1
    with pytest.raises(CodecError, match="version 3"):
        decode(bytes(data))


@pytest.mark.parametrize(
    "spec", ["int8(group=1)", "int4(group=0)", "cachegen(level=5)", "fisher(level=-1)", "cachegen(group=0)"]
)
def test_arguments_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(SpecError):
        make(spec)


def test_a_sensitivity_of_another_shape_is_refused() -> None:
    keys, values = kv(3)
    other = Sensitivity("model", torch.ones(4, 2, 9), torch.ones(4, 2, 6))
    with pytest.raises(InputError, match="sensitivity"):
        make("fisher", sensitivity=other).encode(keys, values)


def test_a_sensitivity_comes_back_from_its_file_for_its_model_only(tmp_path: Path) -> None:
    made = Sensitivity("this", torch.rand(4, 2, 8), torch.rand(4, 2, 6))
    made.save(tmp_path / "weights")
    back = Sensitivity.load(tmp_path / "weights", "this")
    assert torch.equal(back.keys, made.keys)
    assert torch.equal(back.values, made.values)
    with pytest.raises(CodecError, match="another model"):
        Sensitivity.load(tmp_path / "weights", "that")


@pytest.mark.parametrize("spec", ["raw", "int8", "int8(group=16)", "int4", "int8_pages", "int4_pages"])
def test_the_estimate_of_fixed_widths_is_exact_but_for_the_head(spec: str) -> None:
    @dataclasses.dataclass
    class Shape:
        layers: int = 4
        kv_heads: int = 2
        head_dim: int = 8
        value_dim: int = 6

    data = codec(spec).encode(*kv(256, torch.float16))
    assert codec(spec).bytes_per_token(Shape(), torch.float16) * 256 == pytest.approx(len(data), abs=400)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1, 30, 1e5]))
@example(rows=5, n=21, seed=5, size=1e5)  # the least integer is among them
def test_coded_integers_are_the_integers(rows: int, n: int, seed: int, size: float) -> None:
    whole = (np.random.default_rng(seed).standard_cauchy((rows, n)) * size).clip(-(2**31), 2**31 - 1).astype(np.int32)
    assert np.array_equal(entropy.decode(entropy.encode(whole), rows, n), whole)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from(cachegen.LEVELS))
def test_cachegen_is_exact_after_quantisation(tokens: int, group: int, seed: int, level: float) -> None:
    x = kv(tokens, seed=seed)[0]
    before = cachegen.quantise(x, group, level)
    after = cachegen.unpack(cachegen.pack(before), (4, 2, tokens, 8), group)
    for name in ("anchors", "scales", "differences", "steps"):
        assert np.array_equal(getattr(before, name), getattr(after, name))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_steps_are_exact_after_quantisation(tokens: int, seed: int, size: float) -> None:
    rows = to_rows(kv(tokens, seed=seed)[0])
    before = steps.quantise(rows, torch.full((len(rows),), size))
    after = steps.unpack(steps.pack(before), *rows.shape)
    for name in ("whole", "codes", "middles"):
        assert np.array_equal(getattr(before, name), getattr(after, name))


@given(st.integers(1, 99), st.sampled_from([4, 8]), st.integers(0, 2**32 - 1))
def test_packed_integers_are_the_integers(n: int, bits: int, seed: int) -> None:
    whole = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, (3, n)).astype(np.uint8))
    packed = torch.from_numpy(grouped.pack(whole, bits))
    assert torch.equal(grouped.unpack(packed, bits, [3, n]), whole)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([("int8", 8), ("int4", 4)]),
    st.integers(2, 9),
    st.integers(1, 21),
    st.sampled_from([*DTYPES, torch.float64]),
    st.sampled_from([1e-7, 1.0, 3e4, 6e4, 1e37, 1e300]),
    st.integers(0, 2**32 - 1),
)
def test_what_is_read_of_a_group_is_its_least_and_so_many_steps(
    method: tuple[str, int], group: int, tokens: int, dtype: torch.dtype, size: float, seed: int
) -> None:
    most = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    given = [(x.double() * size).clamp(-most, most).to(dtype) for x in kv(tokens, seed=seed)]
    data = make(f"{method[0]}(group={group})").encode(*given)
    arrays = [torch.from_numpy(part.copy()) for part in frame.read(data).arrays]
    for back, (low, step, packed), turned in zip(decode(data), (arrays[:3], arrays[3:]), (True, False), strict=True):
        shape = back.transpose(2, 3).shape if turned else back.shape
        kind = torch.float32 if step.dtype == torch.float16 else torch.float64
        at = torch.arange(shape[3]) // group
        wanted = grouped.unpack(packed, method[1], shape) * step.to(kind)[..., at] + low.to(kind)[..., at]
        wanted = wanted.clamp(-torch.finfo(torch.float32).max, torch.finfo(torch.float32).max).float()
        wanted = wanted.clamp(-most, most).to(dtype)
        assert torch.equal(back, wanted.transpose(2, 3) if turned else wanted)


def test_tables_sum_to_one_and_fall_off_from_the_middle() -> None:
    tables = entropy.tables()
    assert np.allclose(tables.sum(1), 1)
    assert bool((np.diff(tables[:, entropy.REACH :], axis=1) <= 0).all())
    assert np.array_equal(tables, tables[:, ::-1])


@pytest.mark.parametrize("interleaved", [False, True])
def test_keys_turned_back_are_those_of_the_first_place(interleaved: bool) -> None:
    rotation = Rotation(ROTATION.frequencies, interleaved)
    key = torch.randn(1, 2, 1, 8)
    moved = torch.cat([rotation.turn(key, place) for place in range(50)], 2)
    back = turn_back(moved, [rotation])
    assert torch.allclose(back, key.expand_as(back), atol=1e-5)
    assert torch.allclose(turn_forth(back, [rotation]), moved, atol=1e-5)


def test_keys_that_turn_together_take_less_turned_back() -> None:
    key = torch.randn(4, 2, 1, 8) * 5
    layers = [torch.cat([r.turn(key[layer], p) for p in range(60)], 1) for layer, r in enumerate([ROTATION] * 4)]
    keys = torch.stack(layers) + torch.randn(4, 2, 60, 8) * 0.01
    values = torch.randn(4, 2, 60, 6) * 0.01
    sensitivity = Sensitivity("model", torch.full((4, 2, 8), 1e-4), torch.full((4, 2, 6), 1e-4))
    upright, as_is = (
        make("fisher", rotations=turns, sensitivity=sensitivity).encode(keys, values) for turns in ([ROTATION] * 4, ())
    )
    assert len(upright) < 0.7 * len(as_is)


def test_finer_levels_take_more_and_lose_less() -> None:
    keys, values = kv(128)
    for name in ("cachegen", "fisher", "ladder"):
        found = []
        for level in range(5):
            data = codec(f"{name}(level={level})").encode(keys, values)
            found.append((-len(data), float((read(data)[1] - values).square().mean())))
        assert found == sorted(found)
        assert len({size for size, _ in found}) == 5


def test_a_ladder_reads_only_what_it_wrote() -> None:
    data = codec("ladder").encode(*kv(5))
    other = fit([(*kv(90, seed=9), 0)], TURNS, WEIGHTS)
    for wrong in (other, None):
        with pytest.raises(CodecError, match="not at hand"):
            decode(data, ladder=wrong)
    with pytest.raises(InputError, match="fitted"):
        make("ladder").encode(*kv(5))


def test_a_profile_comes_back_from_its_file_for_its_model_only(tmp_path: Path) -> None:
    made = Profile(tuple(TURNS), WEIGHTS, ladder())
    made.save(tmp_path / "new folder" / "profile")
    back = Profile.load(tmp_path / "new folder" / "profile", "model")
    assert back.ladder.id == ladder().id
    assert torch.equal(back.sensitivity.keys, WEIGHTS.keys)
    assert torch.equal(back.sensitivity.values, WEIGHTS.values)
    keys, values = kv(21)
    for spec in ("fisher", "ladder"):
        data = made.make(spec).encode(keys, values, 5)
        assert back.make(spec).encode(keys, values, 5) == data
        assert all(torch.equal(*pair) for pair in zip(back.make(spec).decode(data), read(data), strict=True))
    with pytest.raises(CodecError, match="another model"):
        Profile.load(tmp_path / "new folder" / "profile", "that")
    with pytest.raises(CodecError, match="cannot be read"):
        Profile.load(tmp_path / "profile", "model")


def test_a_damaged_profile_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "profile"
    Profile(tuple(TURNS), WEIGHTS, ladder()).save(file)
    data = file.read_bytes()
    whole = frame.read(data)
    for fields, arrays in ((whole.fields, whole.arrays[:5]), ({"fingerprint": "model"}, whole.arrays)):
        file.write_bytes(frame.write(frame.Frame("profile", fields, arrays)))
        with pytest.raises(CodecError, match="damaged"):
            Profile.load(file, "model")
    for at in range(0, len(data), 97):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CodecError):
            Profile.load(file, "model")


def test_a_profile_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        Profile(tuple(TURNS), WEIGHTS, ladder()).save(tmp_path / "file" / "profile")


def test_which_codecs_are_fitted_to_a_model_is_known_by_their_specs() -> None:
    assert {spec for spec in SPECS if takes_profile(spec)} == {"fisher", "ladder"}
    assert takes_profile("ladder(2)")


def test_too_few_tokens_fit_no_ladder() -> None:
    with pytest.raises(InputError, match="too few"):
        fit([(*kv(20), 0)], TURNS, WEIGHTS)


def test_a_ladder_takes_less_where_layers_tell_of_each_other() -> None:
    def layered(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = kv(200, seed=seed)
        return keys[:1].expand(4, 2, 200, 8), values[:1].expand(4, 2, 200, 6)

    weights = Sensitivity("model", torch.full((4, 2, 8), 1e-6), torch.full((4, 2, 6), 1e-6))
    fitted = fit([(*layered(1), 0)], (), weights)
    apart = make("fisher", sensitivity=weights).encode(*layered(2))
    together = make("ladder", ladder=fitted).encode(*layered(2))
    assert len(together) < 0.6 * len(apart)
