"""How near an approximate run of a model is to the exact one, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longreach.errors import InputError

SURE = 0.5
"""The probability of the likeliest token from which a model counts as sure of it."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """`kl`: the mean Kullback-Leibler divergence of the approximate distribution from the exact one, in nats a token;
    `kl_most`: the greatest; `top1`: the share of tokens for which both find the same one likeliest."""

    kl: float
    kl_most: float
    top1: float
    tokens: int


def fidelity(exact: ArrayLike, approximate: ArrayLike) -> Fidelity:
    """Compare logits or log-probabilities `[tokens, vocab]` of the same tokens. Raises InputError where the shapes
    differ or there is no token."""
    one, other = (np.asarray(logits, np.float64) for logits in (exact, approximate))
    if one.shape != other.shape or one.ndim != 2 or not one.size:
        raise InputError(f"fidelity compares logits [tokens, vocab] of one shape, not {one.shape} with {other.shape}")
    divergence = kl_divergence(one, other)
    agreed = one.argmax(-1) == other.argmax(-1)
    return Fidelity(float(divergence.mean()), float(divergence.max()), float(agreed.mean()), len(one))


def kl_divergence(exact: np.ndarray, approximate: np.ndarray) -> np.ndarray:
    """KL(exact ‖ approximate) in nats `[...]`, of logits `[..., vocab]`: the sum of p (log p - log q). What the exact
    distribution gives no mass to counts nothing."""
    log_p, log_q = _log_softmax(exact), _log_softmax(approximate)
    p = np.exp(log_p)
    terms = np.where(p > 0, p * (np.where(p > 0, log_p, 0.0) - log_q), 0.0)
    return np.asarray(np.maximum(terms.sum(-1), 0.0))  # rounding can leave it a little below


def agreement_where_sure(exact: np.ndarray, approximate: np.ndarray, sure: float = SURE) -> NDArray[np.bool_]:
    """For each token of which the exact log-probabilities `[tokens, vocab]` give the likeliest at least `sure`: whether
    the approximate ones find the same likeliest."""
    certain = exact.max(-1) >= np.log(sure)
    return np.asarray((exact.argmax(-1) == approximate.argmax(-1))[certain])


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
