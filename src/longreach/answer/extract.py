"""The most probable span of the passages under the model, found exactly: it cannot invent.

exact-extract, Castel, Ram, Efrat and Levy, "How Optimal is Greedy Decoding for Extractive Question Answering?", AKBC 2022,
arXiv 2108.05857. After a prompt that asks for the answer, a span of tokens t_1 … t_n of the passages is worth

    log p(span) = sum_i log p(t_i | prompt, t_1 … t_{i-1}) + log p(stop | prompt, t_1 … t_n)

where *stop* is any token that ends an answer. The paper runs the model once from every start. Here all spans are paths of
one trie, searched best first: a path's probability bounds that of every span that goes on from it, so the search is over,
and exact, once no open path is worth more than the best finished span. At any depth fewer than 1/p paths are worth more
than p, so the better the answer, the shorter the search; all paths share the prompt's KV.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longreach.answer import Draft, Quote, answerers
from longreach.answer.support import best_sentence, content_words
from longreach.context.assemble import assemble
from longreach.engine import ROOT, Engine
from longreach.types import Passage, Usage

if TYPE_CHECKING:
    import torch

    from longreach.engine.exploration import Exploration

_UNIT = re.compile(r"\w+(?:[-'’.,/:]\w+)*|[^\w\s]")
_OPENING = frozenset("([{\"'“‘«<")
_CLOSING = frozenset(")]}\"'”’»>%°")


@answerers.register("extract")
@dataclass(frozen=True)
class Extract:
    """The most probable span of at most `max_tokens` tokens.

    `width` open paths are computed per forward. Past `max_nodes` computed paths the search ends with the best span found.
    """

    max_tokens: int = 24
    width: int = 16
    max_nodes: int = 1024

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.width, self.max_nodes) < 1:
            raise ValueError("max_tokens, width and max_nodes must be at least 1")

    def overhead(self, question: str, engine: Engine) -> int:
        return engine.count("".join(message.content for message in assemble(question, []))) + 16 + self.max_tokens

    def answer(self, question: str, passages: Sequence[Passage], engine: Engine) -> Generator[str, None, Draft]:
        prompt = [*engine.encode(assemble(question, passages)), *engine.tokenize("Answer:")]
        exploration = engine.explore(prompt)
        starts = _starts(passages, engine.tokenize, self.max_tokens)
        found = search(exploration, starts, _stops(engine), width=self.width, max_nodes=self.max_nodes)
        usage = Usage(
            prompt_tokens=exploration.prompt_tokens,
            reused_tokens=exploration.reused_tokens,
            generated_tokens=found.tokens if found else 0,
        )
        if found is None:
            return Draft("", [], usage)
        asked = content_words(question)
        quotes = []
        for start in found.starts:
            end = start.ends[found.tokens]
            first, last = best_sentence(question, start.passage, start.start, end)
            near = len(asked & content_words(start.passage.chunk.text[first:last])) / max(1, len(asked))
            quotes.append(
                (near, start.passage.hit.score, Quote(start.passage, first, last, found.probability), start, end)
            )
        _, _, quote, start, end = max(quotes, key=lambda entry: entry[:2])
        text = start.passage.chunk.text[start.start : end]
        yield text
        return Draft(text, [quote], usage)


@dataclass(frozen=True, slots=True)
class Start:
    """A place in a passage where a span may begin: the tokens from there, and for each number of tokens after which a
    span may end, the character after it."""

    passage: Passage
    start: int
    tokens: Sequence[int]
    ends: dict[int, int]


@dataclass(frozen=True, slots=True)
class Span:
    """The best span: its probability, its length in tokens, and every place where it stands."""

    probability: float
    tokens: int
    starts: Sequence[Start]


def search(
    exploration: Exploration, starts: Sequence[Start], stops: Sequence[int], *, width: int, max_nodes: int
) -> Span | None:
    """The most probable span of `starts`; None where there is none. Best first over the trie of their tokens."""
    import math

    best: tuple[float, int, Sequence[Start]] | None = None
    heap: list[
        tuple[float, int, int, int, int, list[Start]]
    ] = []  # -log p, tie break, parent node, token, depth, starts
    pushed = 0

    def push_children(node: int, log_p: float, depth: int, here: Sequence[Start], next_log_p: torch.Tensor) -> None:
        nonlocal pushed
        children: dict[int, list[Start]] = {}
        for start in here:
            if depth < len(start.tokens):
                children.setdefault(start.tokens[depth], []).append(start)
        tokens = list(children)
        for token, step in zip(tokens, next_log_p[tokens].tolist(), strict=True):
            if best is None or log_p + step > best[0]:
                pushed += 1
                heapq.heappush(heap, (-(log_p + step), pushed, node, token, depth + 1, children[token]))

    push_children(ROOT, 0.0, 0, starts, exploration.root)
    while heap and len(exploration) < max_nodes:
        batch = []
        while heap and len(batch) < width and (best is None or -heap[0][0] > best[0]):
            batch.append(heapq.heappop(heap))
        if not batch:
            break
        nodes, log_ps = exploration.expand([(parent, token) for _, _, parent, token, _, _ in batch])
        stop = log_ps[:, list(stops)].logsumexp(dim=-1).tolist()
        for row, (minus_log_p, _, _, _, depth, here) in enumerate(batch):
            whole = -minus_log_p + stop[row]
            ending = [start for start in here if depth in start.ends]
            if ending and (best is None or whole > best[0]):
                best = (whole, depth, ending)
        for row, (minus_log_p, _, _, _, depth, here) in enumerate(batch):
            push_children(nodes[row], -minus_log_p, depth, here, log_ps[row])
    return Span(math.exp(best[0]), best[1], best[2]) if best else None


def _starts(passages: Sequence[Passage], encode: Callable[[str], Sequence[int]], max_tokens: int) -> list[Start]:
    """Every place of the passages where a span may begin: at each word, and at a bracket or quotation mark before one."""
    known: dict[str, Sequence[int]] = {}

    def tokens_of(text: str) -> Sequence[int]:
        if text not in known:
            known[text] = encode(text)
        return known[text]

    starts = []
    for passage in passages:
        text = passage.text
        units = [(match.start(), match.end()) for match in _UNIT.finditer(text)]
        for first, (begin, _) in enumerate(units):
            if not (text[begin].isalnum() or text[begin] in _OPENING or text[begin] in "$€£¥#"):
                continue
            tokens: list[int] = []
            ends: dict[int, int] = {}
            for at in range(first, len(units)):
                start, end = units[at]
                spaced = at == first or text[start - 1].isspace()
                tokens += tokens_of((" " if spaced else "") + text[start:end])
                if len(tokens) > max_tokens:
                    break
                if text[end - 1].isalnum() or text[end - 1] in _CLOSING:
                    ends[len(tokens)] = end
            if ends:
                starts.append(Start(passage, begin, tokens[:max_tokens], ends))
    return starts


def _stops(engine: Engine) -> list[int]:
    """The tokens that end an answer: the model's own, a full stop, a line's end."""
    ends = set(engine.end_tokens)
    for text in (".", "\n", "\n\n", ".\n", ".\n\n"):
        tokens = engine.tokenize(text)
        if len(tokens) == 1:
            ends.add(tokens[0])
    return sorted(ends)
