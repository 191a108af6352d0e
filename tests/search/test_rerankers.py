"""What every registered reranker promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from longreach.errors import ModelError
from longreach.library import Library
from longreach.search import rerankers, search

Opener = Callable[..., Library]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("cross")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "dog", "fish", "bird"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.thorough
def test_a_reranker_orders_the_same_hits_anew(opened: Opener, tiny: Path) -> None:
    library = opened()
    for i, text in enumerate(["cat dog", "cat fish", "cat bird dog", "cat cat"]):
        library.add_text(str(i), text)
    before = search(library, "cat", 4)
    for name in rerankers.names():
        spec = f"cross_encoder(model={str(tiny)!r}, depth=3)" if name == "cross_encoder" else name
        after = rerankers.make(spec).rerank("cat", before)
        assert {hit.chunk.id for hit in after} == {hit.chunk.id for hit in before}
        assert [hit.score for hit in after] == sorted((hit.score for hit in after), reverse=True)
        assert all(hit.scores["hybrid"] for hit in after)
        assert rerankers.make(spec).rerank("cat", []) == []
    hits = search(library, "cat", 2, reranker=f"cross_encoder(model={str(tiny)!r})")
    assert len(hits) == 2
    assert all(hit.score == hit.scores["cross_encoder"] for hit in hits)


@pytest.mark.thorough
def test_a_cross_encoder_that_is_not_there_is_an_error_that_names_it(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    library = opened()
    library.add_text("a", "cat")
    with pytest.raises(ModelError, match="empty"):
        search(library, "cat", reranker=f"cross_encoder(model={str(tmp_path / 'empty')!r})")
