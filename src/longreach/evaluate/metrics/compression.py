"""How well a model predicts text, in bits, so that models with other tokenizers can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from longreach.errors import InputError

BIAS = -27.0
"""What information capacity adds to the bits gained, as its authors do for English web text; -24 for their mixed set.
It is fitted, so that the sizes of one family come out alike: compare values of one bias and one text alone."""


def bits_per_character(log_probabilities: Sequence[float], characters: int) -> float:
    """The bits that coding a text with the model takes, over its characters: `log_probabilities` (natural) are those of
    its tokens, each after all that came before. Raises InputError for a text without characters."""
    if characters < 1:
        raise InputError("bits per character need a text with characters")
    return -math.fsum(log_probabilities) / math.log(2) / characters


def information_capacity(
    log_probabilities: Sequence[float], size: int, flops_per_token: float, *, bias: float = BIAS
) -> float:
    """What a model's predictions save of a text, over what they cost (Yuan et al. 2025, arXiv 2511.08066): the bits of
    the text less those of its code, per token, plus `bias`, over the binary logarithm of the operations per token.

    `size` is the text's bytes in UTF-8; `log_probabilities` (natural) those of its tokens. Raises InputError where
    there is no token or no more than one operation a token.
    """
    tokens = len(log_probabilities)
    if not tokens or flops_per_token <= 1:
        raise InputError("information capacity needs at least one token and more than one operation for each")
    coded = -math.fsum(log_probabilities) / math.log(2)
    return ((8 * size - coded) / tokens + bias) / math.log2(flops_per_token)
