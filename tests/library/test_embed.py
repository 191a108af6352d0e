"""The embedded encoder: the vectors that sentence-transformers gives, without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longreach.config import load_settings
from longreach.errors import LongreachError, ModelError
from longreach.library.embed import load_encoder
from longreach.library.embed.minilm import MiniLM
from longreach.library.embed.operations_numpy import erf

TEXTS = ["a cat", "A much longer text. " * 200, "", "\ud800 odd \x00", "日本語のテキスト", "x" * 3000]


def test_erf_is_the_error_function() -> None:
    import math

    points = np.linspace(-5, 5, 1001, dtype=np.float32)
    np.testing.assert_allclose(erf(points), [math.erf(float(x)) for x in points], atol=5e-7)


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=tmp_path.name):
        MiniLM.load(tmp_path)


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    try:
        loaded = load_encoder("embedded", cache=load_settings().cache)
    except (LongreachError, ImportError) as error:
        pytest.skip(f"the embedded encoder is not at hand: {error}")
    assert isinstance(loaded, MiniLM)
    return loaded


@pytest.mark.thorough
def test_questions_and_documents_get_the_same_vectors(encoder: MiniLM) -> None:
    documents, questions = encoder.embed_documents(TEXTS), encoder.one_by_one(TEXTS, "numpy")
    np.testing.assert_allclose(documents, questions, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-5)
    assert documents.dtype == questions.dtype == np.float32
    assert documents.shape == (len(TEXTS), encoder.dim)
    assert encoder.embed_documents([]).shape == encoder.embed_queries([]).shape == (0, encoder.dim)


@pytest.mark.thorough
def test_the_vectors_are_those_of_sentence_transformers(encoder: MiniLM) -> None:
    from longreach.fetch import ensure

    folder = ensure("encoder", cache=load_settings().cache)
    reference = load_encoder(str(folder), cache=folder)
    assert reference.dim == encoder.dim
    np.testing.assert_allclose(encoder.embed_documents(TEXTS), reference.embed_documents(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.one_by_one(TEXTS, "numpy"), reference.embed_queries(TEXTS), atol=1e-5)


@pytest.mark.thorough
def test_a_question_in_8_bits_keeps_its_direction(encoder: MiniLM) -> None:
    exact, rounded = encoder.one_by_one(TEXTS, "torch"), encoder.one_by_one(TEXTS, "int8")
    assert (exact * rounded).sum(axis=1).min() > 0.98
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-5)


@pytest.mark.thorough
def test_an_encoder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        load_encoder(str(tmp_path / "empty"), cache=tmp_path, offline=True)
