"""What a prompt is made of, as far as a replica may have read it before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from longreach.engine.requests import Part, split
from longreach.kv.store.key import encoded, packed

BLOCK = 32
"""Tokens of a block of a prompt's beginning."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names of what a prompt of `tokens` tokens is made of, each with how many tokens it is. `blocks`: its beginning,
    each named by all that stands before it too, so that one is of use only after those before it; `passages`: what
    opens it and its passages, each of use by itself. One of the two is empty: an engine that reads passages apart finds
    them by themselves."""

    tokens: int
    blocks: tuple[tuple[str, int], ...] = ()
    passages: tuple[tuple[str, int], ...] = ()


def wanted(parts: Sequence[Part], tenant: str, *, apart: bool) -> Wanted:
    """Of a prompt of `tenant`, for an engine that reads passages `apart`, or not. What two tenants want has different
    names: nothing is reused between them."""
    total = sum(len(part.token_ids) for part in parts)
    opening, passages = split(parts)
    if apart and passages:
        began = _name(tenant, opening)
        named = [(began, len(opening)), *((_name(began, passage), len(passage)) for passage in passages)]
        return Wanted(total, passages=tuple(dict.fromkeys(named)))
    tokens = list(chain.from_iterable(part.token_ids for part in parts))
    blocks, name = [], tenant
    for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
        name = _name(name, tokens[at : at + BLOCK])
        blocks.append((name, BLOCK))
    return Wanted(total, blocks=tuple(blocks))


def _name(before: str, tokens: Sequence[int]) -> str:
    digest = hashlib.blake2b(encoded(before), digest_size=12)
    digest.update(b"\0" + packed(tokens))
    return digest.hexdigest()
