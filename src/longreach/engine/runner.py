"""Running the network for the jobs of a step."""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from longreach.attention.paged import PlainStep
from longreach.attention.step import Step, begin
from longreach.attention.strided import StridedStep
from longreach.attention.tree import Tree, TreeStep
from longreach.engine.job import Job
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence
from longreach.model.bridge import Bridge


class Runner:
    """Puts the new tokens of all jobs into one row and through the network."""

    def __init__(self, bridge: Bridge, pool: PagePool) -> None:
        self._bridge = bridge
        self._pool = pool
        self._device = bridge.device
        self._kind: type[Step] = StridedStep if self._device.type == "cpu" else PlainStep

    def run(self, work: Many[tuple[Job, int]]) -> tuple[list[Job], torch.Tensor]:
        """Compute that many tokens of each job. Returns the jobs that have all their tokens computed now, and the
        logits `[those jobs, vocab]` after their last, in float32."""
        chunks = [job.tokens[job.done : job.done + count] for job, count in work]
        rows = begin([(_sequence(job), chunk) for (job, _), chunk in zip(work, chunks, strict=True)])
        finished: list[Job] = []
        keep: list[int] = []
        positions: list[int] = []
        for (job, count), row in zip(work, rows, strict=True):
            positions += range(row.position, row.position + count)
            if job.missing == count:
                finished.append(job)
                keep.append(row.first + count - 1)
        tokens = self._tensor([token for chunk in chunks for token in chunk])
        step = self._kind(self._pool, self._bridge.rotations, rows)
        logits = self._bridge.run(tokens, self._tensor(positions), step, self._tensor(keep or [0]))
        for job, count in work:
            job.done += count
        return finished, logits[: len(keep)].float()

    def run_tree(self, tree: Tree, tokens: list[int], positions: list[int], sees: torch.Tensor) -> torch.Tensor:
        """Logits `[new, vocab]`, in float32, of nodes that are added to `tree`; `sees [new, nodes]` says which nodes,
        old and new, each of them attends to beside the sequence."""
        inner = self._kind(self._pool, self._bridge.rotations, [])
        step = TreeStep(inner, tree, positions, sees.to(self._device))
        everything = self._tensor(range(len(tokens)))
        logits = self._bridge.run(self._tensor(tokens), self._tensor(positions), step, everything)
        step.commit()
        return logits.float()

    def _tensor(self, values: Many[int]) -> torch.Tensor:
        return torch.tensor(list(values), device=self._device)


def _sequence(job: Job) -> Sequence:
    assert job.sequence is not None
    return job.sequence
