"""The name of the keys and values that a model makes: it changes when they may, and not otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from longreach.model.identity import _summed, kv_fingerprint
from longreach.model.load import load


@pytest.fixture
def copy(stories: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stories, tmp_path / "model"))


@pytest.fixture
def of(copy: Path, tmp_path: Path) -> Callable[..., str]:
    def fingerprint(*more: str, dtype: str = "float32") -> str:
        return kv_fingerprint(load(str(copy), cache=tmp_path, device="cpu", dtype=dtype), *more)

    return fingerprint


def edit_weights(folder: Path, at: int) -> None:
    """One bit of one weight."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_a_model_that_was_not_changed_keeps_its_name_wherever_it_lies(
    of: Callable[..., str], copy: Path, tmp_path: Path
) -> None:
    before = of()
    assert of() == before
    elsewhere = Path(shutil.copytree(copy, tmp_path / "elsewhere"))
    assert kv_fingerprint(load(str(elsewhere), cache=tmp_path, device="cpu", dtype="float32")) == before


@pytest.mark.parametrize("at", [-2, -4000, -200_001, -400_001])
def test_a_file_replaced_under_its_name_with_any_other_weight_gives_another(
    of: Callable[..., str], copy: Path, at: int
) -> None:
    before = of()
    edit_weights(copy, at)
    assert of() != before


def test_configuration_dtype_and_what_is_named_beside_give_another(of: Callable[..., str], copy: Path) -> None:
    found = [of(), of("8 bits"), of("8", " bits"), of(dtype="bfloat16")]
    file = copy / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "rms_norm_eps": 2e-5}))
    found.append(of())
    assert len(set(found)) == len(found)


def test_the_tokenizer_does_not_count(of: Callable[..., str], copy: Path) -> None:
    before = of()
    file = copy / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 7}))
    assert of() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_the_sums_taken_on_a_device_tell_values_and_places_apart(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = (torch.rand(7, 11) * 200).to(dtype)
    found = {_summed(weight)}
    changed = weight.clone()
    changed[3, 4] += 1
    found.add(_summed(changed))
    found.add(_summed(torch.flip(weight, [0])))
    assert len(found) == 3
    whole = _summed(weight)
    monkeypatch.setattr("longreach.model.identity._PART", 64)
    assert _summed(weight) == whole
