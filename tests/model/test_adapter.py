"""Adapters: applied they add what they say, taken off nothing of them is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from families import fresh
from longreach.errors import ModelError
from longreach.model.adapter import Adapter, weights_of

NAMES = ["model.layers.0.self_attn.k_proj", "model.layers.2.mlp.down_proj"]
TOKENS = torch.arange(12)[None] * 5 % 97


def made(seed: int = 0) -> tuple[torch.nn.Module, Adapter]:
    """A model and an adapter that changes something."""
    model = fresh("llama").requires_grad_(False)
    adapter = Adapter.fresh(model, NAMES, 3, 2.0, "passages", seed)
    generator = torch.Generator().manual_seed(seed)
    up = {name: torch.randn(part.shape, generator=generator) * 0.3 for name, part in adapter.up.items()}
    return model, replace(adapter, up=up, down={name: part.detach() for name, part in adapter.down.items()})


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(TOKENS).logits
    return found


def test_an_adapter_taken_off_leaves_the_original_to_the_bit() -> None:
    model, adapter = made()
    before = logits(model)
    with adapter.applied(model):
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    with pytest.raises(ZeroDivisionError), adapter.applied(model):
        raise ZeroDivisionError
    assert torch.equal(logits(model), before)


def test_an_applied_adapter_is_the_sum_of_the_weights() -> None:
    model, adapter = made()
    with adapter.applied(model):
        applied = logits(model)
    for name in NAMES:
        weight = model.get_submodule(name).weight
        weight += adapter.scale * adapter.up[name] @ adapter.down[name]
    assert torch.allclose(logits(model), applied, atol=1e-5)


@pytest.mark.parametrize("first", [0, 5, 12])
def test_only_the_first_tokens_are_read_with_the_adapter(first: int) -> None:
    model, adapter = made()
    plain = logits(model)
    with adapter.applied(model):
        whole = logits(model)
    with adapter.applied(model, first):
        part = logits(model)
    assert torch.allclose(part[:, :first], whole[:, :first], atol=1e-6)
    if first == 0:
        assert torch.equal(part, plain)
    elif first < 12:
        assert not torch.allclose(part[:, first:], whole[:, first:], atol=1e-4)


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    model, adapter = made()
    file = tmp_path / "folder" / "adapter.safetensors"
    replace(adapter, notes={"steps": "12"}).save(file)
    read = Adapter.load(file).on(model)
    assert (read.scale, read.scope, read.base, read.notes) == (2.0, "passages", weights_of(model), {"steps": "12"})
    for name in NAMES:
        assert torch.allclose(read.up[name], adapter.up[name], atol=1e-3)
        assert torch.allclose(read.down[name], adapter.down[name], atol=1e-3)
    assert read.bytes == adapter.bytes


def test_an_adapter_of_other_weights_is_refused() -> None:
    model, adapter = made()
    model.get_submodule(NAMES[0]).weight[0, 0] += 1.0
    with pytest.raises(ModelError, match="made for the weights"):
        adapter.on(model)


def test_weights_have_the_same_name_in_either_format() -> None:
    model = fresh("llama").to(torch.bfloat16)
    assert weights_of(model) == weights_of(model.float())


def test_files_that_are_no_adapter_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "damaged.safetensors").write_bytes(b"12345678")
    save_file({"x.down": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, reason in (("damaged", "cannot be read"), ("missing", "cannot be read"), ("other", "no adapter of this")):
        with pytest.raises(ModelError, match=reason):
            Adapter.load(tmp_path / f"{name}.safetensors")


def test_a_module_that_is_not_there_or_not_linear_is_named() -> None:
    model, _ = made()
    for name, reason in (("model.layers.9.mlp.up_proj", "this one has not"), ("model.norm", "no linear module")):
        with pytest.raises(ModelError, match=reason):
            Adapter.fresh(model, [name], 2, 1.0, "passages", 0)
