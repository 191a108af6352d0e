"""GGUF files as models: our own conversion for the Llama architecture, transformers' import for the others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from longreach.errors import ModelError
from longreach.model import embedded
from longreach.model.gguf import GGUF, build_tokenizer, convertible, knows_tokenizer, tokenizer_config
from longreach.model.gguf_pieces import build_pieces, knows_pieces


def folder_of(file: Path, cache: Path) -> tuple[Path, str | None]:
    """Where transformers finds the model of a GGUF file: `(folder, None)` in its own format, converted once into the
    cache, or `(folder, file name)` where transformers shall read the file itself. Raises ModelError."""
    gguf = GGUF(file)
    if "rope_freqs.weight" in gguf.tensor_names:
        raise ModelError(f"{file} scales its rotary frequencies, which is not supported here: load the original model")
    if convertible(gguf):
        done = converted(file, cache)
        embedded.convert_into(file, done)
        return done, None
    if gguf.get("tokenizer.ggml.model") == "gpt2" and not knows_tokenizer(gguf):
        pre = gguf.get("tokenizer.ggml.pre")
        raise ModelError(f"{file} cuts words in a way that is not known here ({pre!r}): load the original model")
    return file.parent, file.name


def converted(file: Path, cache: Path) -> Path:
    """The folder of a GGUF file's conversion, if it is one that is converted."""
    told = file.stat()
    key = hashlib.sha256(f"{file.resolve()} {told.st_size} {told.st_mtime_ns}".encode()).hexdigest()[:8]
    return cache / "gguf" / f"{file.stem}-{key}"


def tokenizer_of(file: Path) -> Any:
    """The tokenizer of a GGUF file that transformers reads itself: ours where we know its rules, else transformers'."""
    gguf = GGUF(file)
    if not (knows_tokenizer(gguf) or knows_pieces(gguf)):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    from transformers import PreTrainedTokenizerFast

    options = {key: value for key, value in tokenizer_config(gguf).items() if key != "tokenizer_class"}
    make: Any = PreTrainedTokenizerFast
    built = build_pieces(gguf) if knows_pieces(gguf) else build_tokenizer(gguf)
    return make(tokenizer_object=built, **options)
