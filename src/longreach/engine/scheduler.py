"""Who computes what in the next step: decodes first, then parts of prompts, up to a number of tokens.

Prompts are read in chunks, and the decodes of others ride along (Agrawal et al. 2023, arXiv 2308.16369). Where pages
run out, what the prefix cache holds goes first; then whoever comes last waits, and later goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from longreach.engine.job import Job
from longreach.kv.pool import OutOfPagesError, PagePool
from longreach.kv.prefix import PrefixCache
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence
from longreach.kv.swap import swap_in, swap_out

GROWTH = 64
"""Tokens for which pages are taken at once while an answer grows."""


class Keeper(Protocol):
    """Holds pages for reuse alone."""

    def evict(self, pages: int) -> bool:
        """Let go of pages until so many are free in the pool; False where that cannot be."""
        ...


@dataclass(eq=False)
class Scheduler:
    """`waiting` have no pages, `running` have. A step computes at most `step_tokens` tokens of at most `most` jobs.

    `preemption` says what becomes of the KV of a job that must wait again: it is computed once more ("recompute"), or
    kept in host memory ("swap"). `keepers` are asked for pages in their order, the prefix cache first.
    """

    pool: PagePool
    layers: int
    heads: int
    prefix: PrefixCache | None
    step_tokens: int = 512
    most: int = 256
    preemption: Literal["recompute", "swap"] = "recompute"
    keepers: list[Keeper] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)
    preempted: int = 0

    def __post_init__(self) -> None:
        if self.prefix is not None:
            self.keepers.insert(0, self.prefix)

    def pages_for(self, tokens: int) -> int:
        """How many pages `tokens` tokens take in a sequence of their own."""
        return self.layers * self.heads * -(-tokens // self.pool.page_size)

    def add(self, job: Job) -> None:
        """Let `job` wait for its turn."""
        self.waiting.append(job)
        self.waiting.sort(key=Job.rank)

    def remove(self, job: Job) -> None:
        """Forget `job`, and free what it holds."""
        for jobs in (self.waiting, self.running):
            if job in jobs:
                jobs.remove(job)
        job.release()
        job.release_beginning()

    def schedule(self) -> list[tuple[Job, int]]:
        """The jobs of the next step, each with how many of its tokens are to be computed; their pages are reserved."""
        planned: dict[Job, int] = {}
        for job in self._ranked():
            if job.missing == 1 and len(planned) < self.step_tokens and self._grow(job, planned):
                planned[job] = 1
        for job in self._ranked():
            left = self.step_tokens - sum(planned.values())
            if job.missing > 1 and left > 0 and self._grow(job, planned):
                planned[job] = min(job.missing, left)
        while self.waiting and len(self.running) < self.most:
            left = self.step_tokens - sum(planned.values())
            job = self.waiting[0]
            if left <= 0 or not self._admit(job, planned):
                break
            planned[job] = min(job.missing, left)
        return list(planned.items())

    def _ranked(self) -> Iterator[Job]:
        """Whoever runs, best first; those that are preempted meanwhile left out."""
        for job in sorted(self.running, key=Job.rank):
            if job in self.running:
                yield job

    def _admit(self, job: Job, planned: dict[Job, int]) -> bool:
        if job.leader is not None and job.leader.active and not job.leader.read:
            return False  # it shares the pages of a prompt that is being read
        try:
            if job.swapped is not None:
                assert job.sequence is not None
                self._room(job.swapped.pages + self._lacking(job.sequence, job.missing))
                swap_in(job.sequence, job.swapped)
                job.swapped = None
                job.sequence.reserve(job.missing)
            else:
                self._begin(job)
        except OutOfPagesError:
            worst = max(self.running, key=Job.rank, default=None)
            if worst is None or worst.priority <= job.priority:
                return False
            planned.pop(worst, None)
            self.preempt(worst)
            return self._admit(job, planned)
        self.waiting.remove(job)
        self.running.append(job)
        return True

    def _begin(self, job: Job) -> None:
        """Pages for all tokens that are known; those of a known prefix are shared. The last token is always computed,
        since its logits are wanted and only KV is kept. A policy's request, too, may begin with what was read exactly;
        what it keeps is its own."""
        sequence = Sequence(self.pool, self.layers, self.heads)
        shared = [segment.share() for segment in job.begins]
        if not job.begins:
            shared = self._known(job)
        for segment in shared:
            sequence.add(segment)
        missing = len(job.tokens) - sequence.position
        try:
            ahead = missing + self._growth(job)
            if not self.evict(self.pages_for(ahead)):
                ahead = missing
                self._room(self.pages_for(ahead))
            sequence.reserve(ahead)
        except OutOfPagesError:
            sequence.release()
            if not shared:
                raise
            # A shared beginning can take a page more than reading it anew; by now nothing is kept for reuse any more.
            job.forget_beginning()
            self._begin(job)
            return
        job.begin(sequence)

    def _known(self, job: Job) -> list[Segment]:
        """What was read of the beginning of a job's text: by anybody, or by the sample of the same prompt before it."""
        if self.prefix is not None:
            return self.prefix.find(job.tokens[: -job.unshared], job.tenant)
        leader = job.leader.sequence if job.leader in self.running and job.leader is not None else None
        if leader is None or not all(segment.complete for segment in leader.segments):
            return []
        return leader.share(len(job.prompt) - job.unshared)

    def _grow(self, job: Job, planned: dict[Job, int]) -> bool:
        """Room for the missing tokens of a running job; False where it has to wait itself."""
        assert job.sequence is not None
        while True:
            for ahead in (max(job.missing, self._growth(job)), job.missing):
                if self.evict(self._lacking(job.sequence, ahead)):
                    job.sequence.reserve(ahead)
                    return True
            worst = max(self.running, key=Job.rank)
            planned.pop(worst, None)
            self.preempt(worst)
            if worst is job:
                return False

    def _growth(self, job: Job) -> int:
        """How many tokens of its answer get pages at once: the more the longer the text is, while most of the pool is
        free, since pages taken later lie elsewhere, and every such place costs a decoding step time."""
        plenty = self.pool.free > len(self.pool) // 2
        known = len(job.prompt) + len(job.output)
        return min(max(GROWTH, known // 4) if plenty else GROWTH, job.left)

    def _lacking(self, sequence: Sequence, tokens: int) -> int:
        """How many pages `sequence` lacks for `tokens` tokens more."""
        return self.pages_for(max(0, tokens - sequence.room))

    def _room(self, pages: int) -> None:
        if not self.evict(pages):
            raise OutOfPagesError(f"{pages} pages are needed and {self.pool.free} are free")

    def evict(self, pages: int) -> bool:
        """Free pages by letting go of what is only kept for reuse. False where that is not enough."""
        return self.pool.free >= pages or any(keeper.evict(pages) for keeper in self.keepers)

    def unshare(self, job: Job) -> None:
        """Make room for what a policy keeps of pages that others hold too."""
        if job.policy is None or not job.policy.drops or job.compacted >= 0 or job.sequence is None:
            return
        held = (self.pool.counts[segment.pages] > 1 for segment in job.sequence.segments)
        self.evict(sum(int(many.sum()) for many in held))

    def preempt(self, job: Job) -> None:
        """Let a running job wait again: its pages are free."""
        assert job.sequence is not None
        self.running.remove(job)
        if self.preemption == "swap" or not job.exact:
            job.swapped = swap_out(job.sequence)
        else:
            job.release()
        self.preempted += 1
        self.add(job)
