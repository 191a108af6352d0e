"""The tokenizer of a GGUF file whose pieces are SentencePiece's, for Gemma: byte-pair encoding told by scores.

SentencePiece (Kudo and Richardson 2018, arXiv 1808.06226) keeps no list of merges: of two neighbours that together are
a piece, those whose piece has the highest score are merged first. Spaces are written as "▁" and none is put in front;
what no piece spells is spelt in bytes. transformers' own import takes the scores for those of a unigram model, which
cuts words elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from longreach.model.gguf import GGUF

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Kinds of tokens in `tokenizer.ggml.token_type`."""
_SPACE = "\u2581"


def knows_pieces(gguf: GGUF) -> bool:
    """Whether `build_pieces` builds this file's tokenizer exactly."""
    ours = gguf.get("tokenizer.ggml.model") == "llama" and not gguf.get("tokenizer.ggml.add_space_prefix", True)
    return bool(ours and gguf.architecture in ("gemma", "gemma2", "gemma3"))


def build_pieces(gguf: GGUF) -> Tokenizer:
    """Byte-pair encoding from pieces and scores; begins with BOS where the file says so."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    tokens: list[str] = gguf.need("tokenizer.ggml.tokens")
    kinds: list[int] = gguf.need("tokenizer.ggml.token_type")
    scores: list[float] = gguf.need("tokenizer.ggml.scores")
    unknown = tokens[int(gguf.get("tokenizer.ggml.unknown_token_id", 3))]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    merges = merges_of(tokens, scores, kinds)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    named = list(zip(tokens, kinds, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token, kind in named if kind == CONTROL]
    )
    # Runs of spaces are among them: they are found in what was normalized.
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token, kind in named if kind == USER_DEFINED])
    first = tokens[int(gguf.get("tokenizer.ggml.bos_token_id", 2))]
    if gguf.get("tokenizer.ggml.add_bos_token", True):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[first, "$A"], pair=[first, "$A", "$B"], special_tokens=[(first, vocabulary[first])]
        )
    return tokenizer


def merges_of(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """All pairs of normal pieces that together are one, the one with the highest score first."""
    known = {token: at for at, token in enumerate(tokens) if kinds[at] == NORMAL}
    found: list[tuple[float, int, int, tuple[str, str]]] = []
    for token, at in known.items():
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair[0] in known and pair[1] in known:
                found.append((-scores[at], known[pair[0]], known[pair[1]], pair))
    return [pair for *_, pair in sorted(found)]
