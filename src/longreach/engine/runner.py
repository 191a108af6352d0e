"""Running the network for the jobs of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from longreach.attention.looking import LookingStep
from longreach.attention.narrowing import Narrow, Narrowed, NarrowingStep
from longreach.attention.noting import NotingStep
from longreach.attention.plain_step import PlainStep
from longreach.attention.step import Attends, Row, Step, begin
from longreach.attention.strided_step import StridedStep
from longreach.attention.tempered import TemperedStep
from longreach.attention.tree import Tree, TreeStep
from longreach.attention.waiting import WaitingStep
from longreach.engine.job import Job
from longreach.engine.sampling import Draw, plain
from longreach.kv.compact import drop, gathered, positions_of
from longreach.kv.policies import LayerView, Policy
from longreach.kv.pool import PagePool
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence
from longreach.kv.window import leave
from longreach.model.adapter import Adapter
from longreach.model.bridge import Bridge
from longreach.model.narrow import layers_of

if TYPE_CHECKING:
    from longreach.engine.decode_graph import DecodeGraphs, Flight


class Runner:
    """Puts the new tokens of all jobs into one row and through the network. `windowed`: whether some layers see only a
    part of the text."""

    def __init__(self, bridge: Bridge, pool: PagePool) -> None:
        self._bridge = bridge
        self._pool = pool
        self._device = bridge.device
        self.windowed = any(window is not None for window in bridge.shapes.windows)
        self._kind, self._graphs = _forms(bridge, pool)
        self._ready: Callable[[int], None] | None = None

    def run(self, work: Many[tuple[Job, int]]) -> tuple[list[Job], torch.Tensor]:
        """Compute that many tokens of each job. Returns the jobs that have all their tokens computed now, and the
        logits `[those jobs, vocab]` after their last, in float32."""
        chunks = [job.ahead(count) for job, count in work]
        begun = begin([(_sequence(job), chunk) for (job, _), chunk in zip(work, chunks, strict=True)])
        rows = [
            replace(row, watcher=None if job.read else job.watcher, reader=job.reader)
            for (job, _), row in zip(work, begun, strict=True)
        ]
        finished: list[Job] = []
        keep: list[int] = []
        positions: list[int] = []
        for (job, count), row in zip(work, rows, strict=True):
            positions += range(row.position, row.position + count)
            if job.missing == count:
                finished.append(job)
                keep.append(row.first + count - 1)
        flat = [token for chunk in chunks for token in chunk]
        if self._graphs is not None and len(rows) <= self._graphs.MOST and _decodes(rows):
            logits = self._graphs.run(rows, flat)
            for job, _ in work:
                job.done += 1
            return finished, (logits if len(keep) == len(rows) else logits[keep]).float()
        tokens = self._tensor(flat)
        step = self._step(rows, any(row.sequence.tempered for row in rows))
        logits = self._bridge.run(tokens, self._tensor(positions), step, self._tensor(keep))
        for job, count in work:
            job.done += count
        return finished, logits[: len(keep)].float()

    def _step(self, rows: Many[Row], tempered: bool) -> Step | TemperedStep:
        """A step of `rows`, or of sequences that are seen by nobody of them, some of which may be `tempered`."""
        make = partial(self._kind, self._pool, self._bridge.rotations)
        return TemperedStep(make, rows) if tempered else make(rows)

    def can_fly(self, work: Many[tuple[Job, int]]) -> bool:
        """Whether a step is one of plain greedy decoding, of which the next may begin before its tokens are known."""
        return (
            self._graphs is not None
            and len(work) <= self._graphs.MOST
            and all(count == 1 and job.missing == 1 and job.settled for job, count in work)
            and len({job.reader is None for job, _ in work}) == 1
            and not any(_sequence(job).tempered for job, _ in work)
            and all(plain(Draw(job.source, job.output)) for job, _ in work)
        )

    def fly(self, jobs: Many[Job], blind: bool = False) -> Flight:
        """Begin a step of one token of each job. `blind`: the tokens are those that the last step, of the same jobs,
        chooses."""
        assert self._graphs is not None
        chunks = [[0] if blind else job.ahead(1) for job in jobs]
        begun = begin([(_sequence(job), chunk) for job, chunk in zip(jobs, chunks, strict=True)])
        rows = [replace(row, reader=job.reader) for row, job in zip(begun, jobs, strict=True)]
        flight = self._graphs.launch(rows, None if blind else [chunk[0] for chunk in chunks])
        for job in jobs:
            job.done += 1
        return flight

    def quicken(self) -> None:
        """Let decoding steps on a processor take a compiled kernel from now on, where it runs here."""
        if self._kind is StridedStep:
            from longreach.attention.numba_decode import can_decode
            from longreach.attention.numba_step import NumbaStep

            if can_decode(self._pool.keys.dtype):
                self._kind = NumbaStep

    def read(self, sequences: Many[Sequence], texts: Many[Many[int]], adapter: Adapter | None) -> None:
        """Compute the KV of each text behind its sequence, with `adapter`; room was reserved."""
        rows = begin(list(zip(sequences, texts, strict=True)))
        self._read(self._kind(self._pool, self._bridge.rotations, rows), rows, texts, adapter)

    def read_noting(
        self, sequences: Many[Sequence], texts: Many[Many[int]], adapter: Adapter | None, before: Segment
    ) -> list[torch.Tensor]:
        """As `read`; and for each text how much its tokens attend to `before`, which stands in all of the sequences:
        see `NotingStep`."""
        rows = begin(list(zip(sequences, texts, strict=True)))
        step = NotingStep(self._kind(self._pool, self._bridge.rotations, rows), before)
        self._read(step, rows, texts, adapter)
        return list(torch.split(step.outward, [row.count for row in rows]))

    def _read(self, step: Attends, rows: Many[Row], texts: Many[Many[int]], adapter: Adapter | None) -> None:
        positions = [at for row in rows for at in range(row.position, row.position + row.count)]
        flat = [token for text in texts for token in text]
        with nullcontext() if adapter is None else self._bridge.adapted(adapter):
            self._bridge.run(self._tensor(flat), self._tensor(positions), step, self._tensor([]))

    @contextmanager
    def awaiting(self, ready: Callable[[int], None]) -> Iterator[None]:
        """While this is open, `look`, `patch` and `narrow` go on with the attention of a layer when `ready(layer)`
        returns: not all layers of what they attend to are in pages yet."""
        self._ready = ready
        try:
            yield
        finally:
            self._ready = None

    def _when_ready(self, step: Attends) -> Attends:
        return step if self._ready is None else WaitingStep(step, self._ready)

    def look(self, sequence: Sequence, tokens: Many[int], at: Many[Segment]) -> list[torch.Tensor]:
        """How much `tokens`, as they would follow `sequence`, attend to the tokens of each of its segments `at`: see
        `LookingStep.weights`. Nothing of them stays."""
        positions = range(sequence.position, sequence.position + len(tokens))
        step = LookingStep(self._bridge.rotations, sequence, len(tokens))
        self._bridge.run(self._tensor(tokens), self._tensor(positions), self._when_ready(step), self._tensor([]))
        return step.weights(at)

    def patch(self, sequence: Sequence, tokens: Many[int], positions: Many[int]) -> None:
        """Compute the KV of `tokens` at rising `positions` amidst `sequence`, into its tail, which has room."""
        entry = sequence.tail.append(tokens)
        row = Row(sequence, 0, len(tokens), positions[0], entry, positions=tuple(positions))
        step = self._when_ready(self._kind(self._pool, self._bridge.rotations, [row]))
        self._bridge.run(self._tensor(tokens), self._tensor(positions), step, self._tensor([]))

    def check_layers(self) -> None:
        """Raises UnsupportedError where `narrow` cannot be done with this model."""
        layers_of(self._bridge.model)

    def narrow(self, sequence: Sequence, tokens: Many[int], narrow: Narrow) -> Narrowed:
        """Compute `tokens`, the last of `sequence`, again behind what stands before them, fewer and fewer of them from
        layer to layer: see `NarrowingStep`. Nothing is written to pages."""
        first = sequence.position - len(tokens)
        step = NarrowingStep(self._bridge.rotations, sequence, len(tokens), narrow)
        positions = self._tensor(range(first, sequence.position))
        self._bridge.run_narrowing(self._tensor(tokens), positions, self._when_ready(step), lambda: step.rows)
        if self._ready is not None:
            self._ready(sequence.layers - 1)  # also of layers that no token got to, something is brought
        return step.chosen()

    def run_tree(self, tree: Tree, tokens: list[int], positions: list[int], sees: torch.Tensor) -> torch.Tensor:
        """Logits `[new, vocab]`, in float32, of nodes that are added to `tree`; `sees [new, nodes]` says which nodes,
        old and new, each of them attends to beside the sequence."""
        inner = self._step([], tree.sequence.tempered)
        step = TreeStep(inner, tree, positions, sees.to(self._device))
        everything = self._tensor(range(len(tokens)))
        logits = self._bridge.run(self._tensor(tokens), self._tensor(positions), step, everything)
        step.commit()
        return logits.float()

    def compact(self, job: Job) -> None:
        """Let the job's policy drop what it does not keep: when the prompt was read, and every so often after. In any
        case, let go of what left the windows of layers."""
        policy, sequence = job.policy, _sequence(job)
        if policy is None or not policy.drops:
            if self.windowed and (job.reader is None or job.reader.wanted is not None):
                leave(sequence, self._bridge.shapes.windows)
        elif job.compacted < 0:
            job.compacted = 0
            drop(sequence, lambda layer: self._kept(job, policy, sequence, layer))
        elif policy.every and len(job.output) - job.compacted >= policy.every:
            job.compacted = len(job.output)
            drop(sequence, lambda layer: _staying(policy, sequence, layer, self._bridge.shapes.windows[layer]))

    def _kept(self, job: Job, policy: Policy, sequence: Sequence, layer: int) -> Many[torch.Tensor]:
        window = self._bridge.shapes.windows[layer]
        if window is not None:
            return [torch.arange(max(0, sequence.position - window), sequence.position)] * sequence.heads
        return policy.keep(self._view(job, sequence, layer))

    def _view(self, job: Job, sequence: Sequence, layer: int) -> LayerView:
        keys, values = gathered(sequence, layer)
        if job.watcher is None:
            return LayerView(layer, keys, values, keys.new_empty(0, sequence.heads, keys.shape[2]), 1.0)
        return LayerView(layer, keys, values, job.watcher.queries[layer], job.watcher.scales[layer])

    def _tensor(self, values: Many[int]) -> torch.Tensor:
        return torch.tensor(list(values), dtype=torch.long, device=self._device)


def _sequence(job: Job) -> Sequence:
    assert job.sequence is not None
    return job.sequence


def _staying(policy: Policy, sequence: Sequence, layer: int, window: int | None) -> list[torch.Tensor]:
    found = []
    for head in range(sequence.heads):
        positions = torch.cat([positions_of(segment, layer, head) for segment in sequence.segments])
        if window is not None:
            mask = positions >= sequence.position - window
        else:
            mask = policy.stay(layer, head, positions, sequence.position)
        found.append(mask.nonzero()[:, 0])
    return found


def _forms(bridge: Bridge, pool: PagePool) -> tuple[type[Step], DecodeGraphs | None]:
    """How steps are computed on the model's device."""
    if bridge.device.type == "cpu":
        return StridedStep, None
    if bridge.device.type != "cuda" or any(rotation.interleaved for rotation in bridge.rotations):
        return PlainStep, None
    from longreach.attention.triton_step import TritonStep
    from longreach.engine.decode_graph import DecodeGraphs

    return TritonStep, DecodeGraphs(bridge, pool)


def _decodes(rows: Many[Row]) -> bool:
    """Whether every sequence has one new token, and kernels say what it attends to."""
    if any(row.count != 1 or row.watcher is not None or row.sequence.tempered for row in rows):
        return False
    return all(row.reader is None for row in rows) or all(row.reader and row.reader.wanted for row in rows)
