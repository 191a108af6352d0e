"""Which replica holds what, as far as can be told from what was sent to each, and which one should take a request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from longreach.serve.replicas.wanted import Wanted

USUAL_TOKENS = 1 << 18
"""How many tokens a replica is taken to hold before it has said so."""
PRESENCE = 32
"""Tokens that a request under way counts for beside those that it has to read: it is written for too, in steps that it
shares with others."""


@dataclass
class _Replica:
    room: int = USUAL_TOKENS
    held: OrderedDict[str, int] = field(default_factory=OrderedDict)  # what was used last stands last
    tokens: int = 0
    under_way: dict[str, int] = field(default_factory=dict)


class Holdings:
    """Of all replicas, by name. What was sent to one it is taken to hold, until more was sent than it has room for:
    what was used longest ago is then taken to be gone, as it is there. A belief that is wrong costs time, and nothing
    else. For one thread."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}

    def order(self, names: Iterable[str], asked: Wanted) -> list[str]:
        """`names`, the one first that has the least to read until `asked` is: what it lacks of it, and what is under
        way there. Among equals, the one with the most room left."""

        def least(name: str) -> tuple[int, int, str]:
            replica = self._of(name)
            missing = asked.tokens - self.held(name, asked)
            return missing + sum(replica.under_way.values()), replica.tokens - replica.room, name

        return sorted(names, key=least)

    def held(self, name: str, asked: Wanted) -> int:
        """How many tokens of `asked` a replica need not read."""
        held = self._of(name).held
        total = sum(tokens for piece, tokens in asked.passages if piece in held)
        for piece, tokens in asked.blocks:
            if piece not in held:
                break
            total += tokens
        return total

    def begin(self, name: str, request: str, asked: Wanted) -> None:
        """`request` was sent to a replica, and will be read there."""
        replica = self._of(name)
        replica.under_way[request] = PRESENCE + asked.tokens - self.held(name, asked)
        for piece, tokens in (*asked.passages, *reversed(asked.blocks)):  # a beginning outlives what follows it
            replica.tokens += 0 if piece in replica.held else tokens
            replica.held[piece] = tokens
            replica.held.move_to_end(piece)
        self._shrink(replica)

    def end(self, name: str, request: str) -> None:
        """`request` has ended, however it did."""
        if name in self._replicas:
            self._replicas[name].under_way.pop(request, None)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all replicas but these."""
        known = set(names)
        self._replicas = {name: replica for name, replica in self._replicas.items() if name in known}

    def set_room(self, name: str, tokens: int) -> None:
        """How many tokens a replica has room for."""
        replica = self._of(name)
        replica.room = tokens
        self._shrink(replica)

    def _of(self, name: str) -> _Replica:
        return self._replicas.setdefault(name, _Replica())

    def _shrink(self, replica: _Replica) -> None:
        while replica.tokens > replica.room and replica.held:
            replica.tokens -= replica.held.popitem(last=False)[1]
