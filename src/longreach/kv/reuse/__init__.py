"""Reuse: which tokens of stored chunks are computed again in a prompt. One method of the literature a file."""

from longreach.kv.reuse.reuse import Question, Reuse, StoredTokens, reuses

__all__ = ["Question", "Reuse", "StoredTokens", "reuses"]
