"""Every span of the passages with its probability as an answer, the likeliest paths first.

After a prompt that asks for the answer, a span of tokens t_1 … t_n is worth

    log p(span) = sum_i log p(t_i | prompt, t_1 … t_{i-1}) + log p(stop | prompt, t_1 … t_n)

where *stop* is any token that ends an answer. All spans are paths of one trie over the passages, and all paths share
the prompt's KV. A path's probability bounds that of every span that goes on from it; at any depth fewer than 1/p
paths are worth more than p, so the likely ones are few.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longreach.engine import ROOT, Engine
from longreach.types import Passage

if TYPE_CHECKING:
    import torch

    from longreach.engine.exploration import Exploration

_UNIT = re.compile(r"\w+(?:[-'’.,/:]\w+)*|[^\w\s]")
_OPENING = frozenset("([{\"'“‘«<$€£¥#")
_CLOSING = frozenset(")]}\"'”’»>%°")


@dataclass(frozen=True, slots=True)
class Start:
    """A place in a passage where a span may begin, at the character `start`: the tokens from there, and for each number
    of tokens after which a span may end, the character after it."""

    passage: Passage
    start: int
    tokens: Sequence[int]
    ends: dict[int, int]


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span: `log_p` with its stop, `log_stop` of that alone, its length in tokens, everywhere it stands."""

    log_p: float
    log_stop: float
    tokens: int
    starts: Sequence[Start]


@dataclass(frozen=True, slots=True)
class _Path:
    """An open path, not computed yet: its last token after the node `parent`."""

    log_p: float
    parent: int
    token: int
    depth: int
    starts: Sequence[Start]


class SpanSearch:
    """The search over the trie of `starts`, one batch of paths at a time."""

    def __init__(self, exploration: Exploration, starts: Sequence[Start], stops: Sequence[int]) -> None:
        self.exploration = exploration
        self.stops = list(stops)
        self._heap: list[tuple[float, int, _Path]] = []
        self._pushed = 0
        self._push(ROOT, 0.0, 0, starts, exploration.root)

    @property
    def bound(self) -> float:
        """No span that is still to be found has a greater log p than this; minus infinity when all are found."""
        return -self._heap[0][0] if self._heap else -math.inf

    def step(self, width: int, floor: float = -math.inf) -> list[Span]:
        """Compute the `width` likeliest open paths, those worth more than `floor`, in one forward; give the spans that
        end there."""
        paths: list[_Path] = []
        while self._heap and len(paths) < width and self.bound > floor:
            paths.append(heapq.heappop(self._heap)[2])
        if not paths:
            return []
        nodes, log_ps = self.exploration.expand([(path.parent, path.token) for path in paths])
        stopping = log_ps[:, self.stops].logsumexp(dim=-1).tolist()
        found = []
        for path, node, next_log_p, log_stop in zip(paths, nodes, log_ps, stopping, strict=True):
            ending = [start for start in path.starts if path.depth in start.ends]
            if ending:
                found.append(Span(path.log_p + log_stop, log_stop, path.depth, ending))
            self._push(node, path.log_p, path.depth, path.starts, next_log_p)
        return found

    def _push(self, node: int, log_p: float, depth: int, starts: Sequence[Start], next_log_p: torch.Tensor) -> None:
        children: dict[int, list[Start]] = {}
        for start in starts:
            if depth < len(start.tokens):
                children.setdefault(start.tokens[depth], []).append(start)
        if not children:
            return
        for (token, here), step in zip(children.items(), next_log_p[list(children)].tolist(), strict=True):
            self._pushed += 1
            path = _Path(log_p + step, node, token, depth + 1, here)
            heapq.heappush(self._heap, (-path.log_p, self._pushed, path))


def starts_of(passages: Sequence[Passage], tokenize: Callable[[str], Sequence[int]], max_tokens: int) -> list[Start]:
    """Every place where a span of at most `max_tokens` tokens may begin: each word, and a bracket or a quotation mark
    before one. A span may end after a word, or after what closes."""
    known: dict[str, Sequence[int]] = {}

    def tokens_of(text: str) -> Sequence[int]:
        if text not in known:
            known[text] = tokenize(text)
        return known[text]

    starts = []
    for passage in passages:
        text = passage.text
        units = [match.span() for match in _UNIT.finditer(text)]
        for first, (begin, _) in enumerate(units):
            if not (text[begin].isalnum() or text[begin] in _OPENING):
                continue
            tokens: list[int] = []
            ends: dict[int, int] = {}
            for at in range(first, len(units)):
                start, end = units[at]
                spaced = at == first or text[start - 1].isspace()
                tokens += tokens_of(f" {text[start:end]}" if spaced else text[start:end])
                if len(tokens) > max_tokens:
                    break
                if text[end - 1].isalnum() or text[end - 1] in _CLOSING:
                    ends[len(tokens)] = end
            if ends:
                starts.append(Start(passage, begin, tokens[:max_tokens], ends))
    return starts


def stops_of(engine: Engine) -> list[int]:
    """The tokens that end an answer: the model's own, a line's end, a full stop, and both together."""
    ends = set(engine.end_tokens)
    for text in (".", *(f"{mark}{line}" for mark in ("", ".", " ") for line in ("\n", "\n\n", "\n\n\n"))):
        tokens = engine.tokenize(text)
        if len(tokens) == 1:
            ends.add(tokens[0])
    return sorted(ends)
