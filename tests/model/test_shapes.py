"""What a configuration says of the KV cache is what the running model asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from families import CONFIGS, fresh
from longreach.errors import InputError, ModelError
from longreach.model.bridge import Bridge
from longreach.model.load import load
from longreach.model.shapes import kv_shape, shape_of


@pytest.mark.thorough
@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_tells_its_shape(family: str) -> None:
    shapes = Bridge(fresh(family)).shapes
    expected = (shapes.layers, shapes.kv_heads, shapes.head_dim, shapes.value_dim)
    assert shape_of(CONFIGS[family]().to_dict()) == expected


def test_latent_attention_is_counted_as_it_attends() -> None:
    latent = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    assert shape_of({"num_hidden_layers": 27, "num_attention_heads": 16, **latent}) == (27, 16, 192, 128)


def test_a_folder_tells_without_being_loaded(stories: Path, tmp_path: Path) -> None:
    shape = kv_shape(str(stories), tmp_path)
    model = load(str(stories), cache=tmp_path, device="cpu").model
    assert (shape.layers, shape.kv_heads) == (model.config.num_hidden_layers, model.config.num_key_value_heads)
    assert shape.numbers == 5 * 4 * (8 + 8)
    assert shape.weight_bytes == (stories / "model.safetensors").stat().st_size
    assert shape.context_length == model.config.max_position_embeddings
    assert shape.parameters == 260_032


def test_what_is_not_at_hand_or_does_not_tell_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="longreach models fetch"):
        kv_shape("embedded", tmp_path)
    with pytest.raises(InputError, match="is a server"):
        kv_shape("http://localhost:1", tmp_path)
    with pytest.raises(ModelError, match="not at hand"):
        kv_shape(str(tmp_path), tmp_path)
    for text in ("{", "[]", json.dumps({"num_hidden_layers": 3})):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match="does not tell"):
            kv_shape(str(tmp_path), tmp_path)


@pytest.mark.thorough
def test_a_gguf_file_tells_what_its_conversion_does(embedded_cache: Path) -> None:
    (file,) = embedded_cache.rglob("*.gguf")
    of_file, of_folder = kv_shape(str(file), embedded_cache), kv_shape("embedded", embedded_cache)
    assert of_file.numbers == of_folder.numbers == 30 * 3 * 128
    assert (of_file.parameters, of_file.context_length) == (of_folder.parameters, of_folder.context_length)
