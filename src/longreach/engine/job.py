"""A job: one prompt on its way to an answer."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

import torch

from longreach.attention.selected import SelectedPages
from longreach.attention.watch import LastQueries
from longreach.engine.requests import FinishReason, Piece, TokenLogprobs
from longreach.engine.sampling import Source
from longreach.engine.spelling import Spelling
from longreach.engine.visible import Visible
from longreach.kv.policies import Policy
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence
from longreach.kv.swap import Swapped

_numbers = itertools.count()


@dataclass(eq=False)
class Job:
    """`prompt` and `output` are token ids; of both together, the first `done` have their KV in `sequence`.

    `priority`: lower comes first. `deadline` and `began` are seconds of `time.perf_counter`. `leader` is another
    sample of the same prompt, whose pages are shared once it has read it; `sample` is its number. A job that `looks`
    reads its prompt, keeps its pages and has the `logits` after it. `compacted` is the length of the output when its
    KV was last made smaller, -1 before. `begins` hold the beginning of the prompt, with passages that were read apart;
    `unread` of its tokens were not at hand before, `loaded` were, but in no pages; `repaired` were computed again. What
    is kept of it serves the same `tenant` alone.
    """

    prompt: list[int]
    source: Source
    limit: int
    began: float
    priority: int = 0
    deadline: float | None = None
    policy: Policy | None = None
    leader: Job | None = None
    sample: int = 0
    output: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    pieces: deque[Piece] = field(default_factory=deque)
    reason: FinishReason | None = None
    error: Exception | None = None
    sequence: Sequence | None = None
    swapped: Swapped | None = None
    done: int = 0
    reused: int | None = None
    ttft: float = 0.0
    ended: float = 0.0
    kv_bytes: int = 0
    number: int = field(default_factory=lambda: next(_numbers))
    looks: bool = False
    watcher: LastQueries | None = None
    reader: SelectedPages | None = None
    compacted: int = -1
    begins: list[Segment] = field(default_factory=list)
    unread: int = 0
    loaded: int = 0
    repaired: int = 0
    logits: torch.Tensor | None = None
    spelling: Spelling | None = None
    tenant: str = ""

    def __post_init__(self) -> None:
        self.visible = Visible(self.source.sampling.stop)

    def rank(self) -> tuple[int, float, int]:
        """Whoever is smaller goes first."""
        return self.priority, float("inf") if self.deadline is None else self.deadline, self.number

    @property
    def tokens(self) -> list[int]:
        """All that is known of the text."""
        return self.prompt + self.output

    def ahead(self, count: int) -> list[int]:
        """The next `count` tokens whose KV is missing."""
        if self.done >= len(self.prompt):
            first = self.done - len(self.prompt)
            return self.output[first : first + count]
        return self.tokens[self.done : self.done + count]

    @property
    def missing(self) -> int:
        """Tokens whose KV is not computed yet; their last one gives the next token."""
        return len(self.prompt) + len(self.output) - self.done

    @property
    def left(self) -> int:
        """Tokens that the answer may still have."""
        return self.limit - len(self.output)

    @property
    def room(self) -> int:
        """Tokens for whose KV it has pages beside that of those computed."""
        return 0 if self.sequence is None else self.sequence.room

    @property
    def read(self) -> bool:
        """Whether the prompt's KV is there."""
        return self.done >= len(self.prompt)

    @property
    def active(self) -> bool:
        """Whether tokens may still come."""
        return self.reason is None and self.error is None

    @property
    def settled(self) -> bool:
        """Whether nothing is dropped of its KV any more, and what is read of it is for kernels to choose."""
        if self.looks or (self.reader is not None and self.reader.wanted is None):
            return False
        return self.policy is None or not self.policy.drops or (self.compacted >= 0 and not self.policy.every)

    @property
    def exact(self) -> bool:
        """Whether its KV is that of plain attention, so that it may be shared with others."""
        return self.policy is None and not self.begins

    @property
    def unshared(self) -> int:
        """How many of the last tokens it must read itself: one for its logits, those that its policy observes."""
        return max(1, 0 if self.policy is None else self.policy.observes)

    def begin(self, sequence: Sequence) -> None:
        """Take over a sequence with the KV of what it shares with earlier texts."""
        self.sequence = sequence
        self.done = sequence.position
        if self.reused is None:
            self.reused = max(0, self.done - self.unread)
        if self.policy is not None and self.policy.observes:
            self.watcher = LastQueries(self.policy.observes)
        if self.policy is not None and self.policy.skips:
            self.reader = SelectedPages(self.policy, sequence)

    def release_beginning(self) -> None:
        """Let go of passages that were read apart."""
        for segment in self.begins:
            segment.release()
        self.begins = []

    def forget_beginning(self) -> None:
        """Let go of them before they are used: all of the prompt is read anew."""
        self.release_beginning()
        self.unread, self.loaded, self.repaired = 0, 0, 0

    def release(self) -> None:
        """Let go of all KV."""
        if self.sequence is not None:
            self.sequence.release()
        self.sequence, self.swapped, self.watcher, self.reader, self.done = None, None, None, None, 0
