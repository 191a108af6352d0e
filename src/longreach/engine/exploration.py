"""Many continuations of one prompt, looked at as a tree that shares the prompt's KV.

Every node is a token after its parent. All new nodes are computed in one forward: each attends to the prompt and to its
own ancestors, and stands at the position that it has on its path (tree attention, Miao et al. 2023, arXiv 2305.09781).
Imported only where a model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from longreach.attention.tree import Tree
from longreach.engine.requests import ROOT
from longreach.errors import InputError, PromptTooLongError

if TYPE_CHECKING:
    from longreach.engine.job import Job
    from longreach.engine.paged import PagedEngine
    from longreach.kv.sequence import Sequence as KVSequence


class Looks(Protocol):
    """Computes the nodes of an exploration: its engine, or who stands before it."""

    context_length: int

    def look(self, found: Exploration, tokens: list[int], positions: list[int], sees: torch.Tensor) -> torch.Tensor:
        """See `PagedEngine.look`."""
        ...


class Reading:
    """The prompt of an exploration on its way: `finish` waits for it, and does not have to once it is `ready`."""

    def __init__(self, engine: PagedEngine, job: Job) -> None:
        self._engine = engine
        self._job = job

    @property
    def ready(self) -> bool:
        return not self._job.active

    def finish(self, through: Looks | None = None) -> Exploration:
        """The exploration, whose nodes are computed by the engine, or `through` another. Raises EndedError where it was
        cancelled or its time was over, and what went wrong in the engine."""
        return self._engine.explored(self._job, through)

    def cancel(self) -> None:
        """Stop reading; for whoever does not want to `finish`."""
        self._engine.dismiss(self._job)


class Exploration:
    """A prompt that was read once. `root` [vocab] holds the log-probabilities of the token after it, in float32;
    `prompt_tokens` is its length, of which `reused_tokens` came from the cache, `loaded_tokens` of them from host
    memory or disk; `recomputed_tokens` of those were computed again."""

    def __init__(
        self,
        engine: Looks,
        sequence: KVSequence,
        reused: int,
        root: torch.Tensor,
        loaded: int = 0,
        repaired: int = 0,
    ) -> None:
        self._engine = engine
        self.tree = Tree(sequence)
        self._depths: list[int] = []
        self._sees = np.zeros((64, 64), dtype=bool)  # [node, node]: a node sees itself and its ancestors
        self.prompt_tokens = sequence.position
        self.reused_tokens = reused
        self.loaded_tokens = loaded
        self.recomputed_tokens = repaired
        self.root = root

    def __len__(self) -> int:
        """How many nodes there are; the next one gets this number."""
        return len(self._depths)

    @property
    def kv_bytes(self) -> int:
        """What the KV of the prompt and the nodes takes."""
        pool = self.tree.sequence.pool
        return self.tree.sequence.pages * pool.page_bytes + self.tree.nbytes

    def expand(self, nodes: Sequence[tuple[int, int]]) -> tuple[list[int], torch.Tensor]:
        """Add nodes, each `(parent, token)`, and give their numbers and log-probabilities [len(nodes), vocab], float32.

        A parent is `ROOT`, an earlier node, or one that stands before it in the same call: a whole path or tree can be
        added at once. Raises InputError for a parent or token that is not there, PromptTooLongError past the context.
        """
        first = len(self)
        if not nodes:
            return [], self.root.new_empty((0, len(self.root)))
        depths = list(self._depths)
        for at, (parent, token) in enumerate(nodes, start=first):
            if not ROOT <= parent < at:
                raise InputError(f"node {at} cannot follow {parent}: there is no such node before it")
            if not 0 <= token < len(self.root):
                raise InputError(f"there is no token {token}: the vocabulary has {len(self.root)}")
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        if self.prompt_tokens + max(depths) >= self._engine.context_length:
            raise PromptTooLongError(
                f"the path is too long: with the prompt it passes the {self._engine.context_length} tokens of context"
            )
        self._grow(len(depths))
        for at, (parent, _) in enumerate(nodes, start=first):
            if parent != ROOT:
                self._sees[at, :at] = self._sees[parent, :at]
            self._sees[at, at] = True
        logits = self._engine.look(
            self,
            [token for _, token in nodes],
            [self.prompt_tokens + depth for depth in depths[first:]],
            torch.from_numpy(self._sees[first : len(depths), : len(depths)]),
        )
        self._depths = depths
        return list(range(first, len(depths))), torch.log_softmax(logits.float(), dim=-1)

    def _grow(self, needed: int) -> None:
        have = len(self._sees)
        if needed > have:
            room = max(needed, 2 * have) - have
            self._sees = np.pad(self._sees, ((0, room), (0, room)))
