from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from longreach.errors import InputError, ModelError, NetworkError
from longreach.model import embedded, names
from longreach.model.device import choose_device, choose_dtype
from longreach.model.load import load


@pytest.fixture
def copy(stories: Path, tmp_path: Path) -> Path:
    """stories260k, to be damaged."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in stories.iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_a_folder_is_loaded_whole(stories: Path, tmp_path: Path) -> None:
    loaded = load(str(stories), cache=tmp_path, device="cpu", dtype="float32")
    assert loaded.context_length == 512
    assert loaded.bytes == 260032 * 4
    assert loaded.end_tokens == {2}
    assert loaded.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_fingerprint_tells_weights_configuration_and_tokenizer_apart(copy: Path, tmp_path: Path) -> None:
    def of() -> str:
        return load(str(copy), cache=tmp_path, device="cpu").fingerprint

    found = [of(), of()]
    edit(copy, rms_norm_eps=2e-5)
    found.append(of())
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-2] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    found.append(of())
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_weights_cut_short_are_damaged(copy: Path, tmp_path: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        load(str(copy), cache=tmp_path)


def test_missing_weights_are_an_error_and_never_made_up(copy: Path, tmp_path: Path) -> None:
    edit(copy, num_hidden_layers=6)
    with pytest.raises(ModelError, match=r"lacks .* weights"):
        load(str(copy), cache=tmp_path)


def test_weights_of_another_shape_are_an_error(copy: Path, tmp_path: Path) -> None:
    edit(copy, intermediate_size=100)
    with pytest.raises(ModelError, match=r"model"):
        load(str(copy), cache=tmp_path)


def test_an_encoder_is_no_causal_language_model(copy: Path, tmp_path: Path) -> None:
    edit(copy, architectures=["BertModel"], model_type="bert")
    with pytest.raises(ModelError, match="BertModel"):
        load(str(copy), cache=tmp_path)


@pytest.mark.parametrize(
    ("file", "match"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")],
)
def test_a_folder_that_lacks_a_file_says_which(copy: Path, tmp_path: Path, file: str, match: str) -> None:
    (copy / file).unlink()
    with pytest.raises(ModelError, match=match) as caught:
        load(str(copy), cache=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_configuration_is_told(copy: Path, tmp_path: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        load(str(copy), cache=tmp_path)


def test_a_damaged_tokenizer_is_told(copy: Path, tmp_path: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer"):
        load(str(copy), cache=tmp_path)


def test_an_architecture_nobody_knows_is_told(copy: Path, tmp_path: Path) -> None:
    edit(copy, architectures=["MysteryForCausalLM"], model_type="mystery")
    with pytest.raises(ModelError, match="mystery"):
        load(str(copy), cache=tmp_path)


def test_a_hub_model_offline_is_a_network_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NetworkError, match="offline"):
        load("nobody/nothing-at-all", cache=tmp_path, offline=True)


def test_the_embedded_model_offline_and_not_there_is_a_network_error(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="offline"):
        load("embedded", cache=tmp_path, offline=True)


def test_names_are_told_apart(stories: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.touch()
    found = {"embedded": "embedded", "http://host:1": "url", "org/name": "hub", "gpt2": "hub"}
    found |= {str(stories): "folder", str(file): "gguf"}
    assert {name: names.kind(name) for name in found} == found


@pytest.mark.parametrize("name", ["/not/there", "./there", "~/nowhere/x", "a/b/c", "lost.gguf"])
def test_a_path_with_nothing_at_it_is_told(name: str) -> None:
    with pytest.raises(ModelError, match="there is no"):
        names.kind(name)


@pytest.mark.parametrize("name", ["", "two words", "org/"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="names no model"):
        names.kind(name)


def test_the_tokenizer_is_the_models_own_or_the_embedded_one_or_none(stories: Path, tmp_path: Path) -> None:
    assert names.tokenizer_file(str(stories), tmp_path) == stories / "tokenizer.json"
    assert names.tokenizer_file("embedded", tmp_path) is None
    own = embedded.folder(tmp_path) / "tokenizer.json"
    own.parent.mkdir(parents=True)
    own.touch()
    assert names.tokenizer_file("embedded", tmp_path) == own
    assert names.tokenizer_file("http://host:1", tmp_path) == own


def test_devices_and_dtypes_that_are_not_there_are_refused() -> None:
    cpu = torch.device("cpu")
    for wrong in ("tpu9", "", "xla"):
        with pytest.raises(InputError):
            choose_device(wrong)
    with pytest.raises(InputError, match="float32"):
        choose_dtype("int8", cpu)
    assert choose_device("cpu") == cpu
    assert choose_dtype("float16", cpu) == torch.float16
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
