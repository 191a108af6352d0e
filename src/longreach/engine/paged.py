"""The engine: many requests at once on one page pool. `schedule -> run -> settle`, again and again.

There is no thread of its own: whoever waits for a token runs the next step, for all. Imported only where a model runs.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from threading import Event, RLock
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from longreach.engine.engine import Stream
from longreach.engine.exploration import Exploration, Looks, Reading
from longreach.engine.job import Job
from longreach.engine.memory import pool_for
from longreach.engine.passage_reader import PassageReader
from longreach.engine.passages import Passages
from longreach.engine.requests import Completion, Part, Piece, Prompt, Sampling, TokenLogprobs, split
from longreach.engine.runner import Runner
from longreach.engine.sampling import Draw, Source, sample
from longreach.engine.scheduler import Scheduler
from longreach.engine.spelling import Spelling
from longreach.engine.text_engine import TextEngine
from longreach.engine.texts import Texts
from longreach.engine.ways import EXACT
from longreach.errors import EndedError, ModelError, PromptTooLongError, UnsupportedError
from longreach.kv.policies import Policy, policies
from longreach.kv.pool import OutOfPagesError
from longreach.kv.prefix import PrefixCache
from longreach.kv.store.store import KVStore
from longreach.model.adapter import Adapter
from longreach.model.bridge import Bridge, Products
from longreach.model.load import LoadedModel
from longreach.types import Timing, Usage

if TYPE_CHECKING:
    from longreach.engine.decode_graph import Flight

QUICK_AFTER = 128
"""Decoding steps after which the model takes its quick form, which costs a second or two once: a short question is
spared them."""
QUICK_AFTER_READING = 4096
"""Tokens read ahead after which it does so as well: who reads a library ahead reads many more."""
_NO_NUMBERS = "the model computed values that are not numbers: try dtype float32 or another model"


class PagedEngine(TextEngine):
    """Answers with a model in this process. `kv_bytes` is the memory for keys and values: of all requests together, and
    of what is kept of past ones (None: what suits the machine). `step_tokens` are computed at most in one step.

    `products`: see `Bridge.quicken`; `kv_dtype`: how keys and values are kept (None: as computed). They, `scheduler`,
    `pool`, `texts` and `way`, the way of reuse that was chosen when it was loaded, may be looked at.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        kv_bytes: int | None = None,
        page_size: int | None = None,
        step_tokens: int | None = None,
        reuse: bool = True,
        preemption: Literal["recompute", "swap"] = "recompute",
        products: Products = "own",
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        self.loaded = loaded
        self.model = loaded.name
        self.context_length = loaded.context_length
        self.parameters = sum(weight.numel() for weight in loaded.model.parameters())
        self.end_tokens = loaded.end_tokens
        self.texts = Texts(loaded.tokenizer, loaded.model.get_input_embeddings().num_embeddings)
        self.bridge = Bridge(loaded.model)
        self.products: Products = products
        self._short_steps = 0
        self._read_ahead = 0
        if loaded.device.type == "cuda":
            self.bridge.quicken(products)  # before anything is captured
        self.pool = pool_for(self.bridge.shapes, loaded, kv_bytes, page_size, kv_dtype)
        self.scheduler = Scheduler(
            self.pool,
            self.bridge.shapes.layers,
            self.bridge.shapes.kv_heads,
            PrefixCache(self.pool) if reuse else None,
            step_tokens or (8192 if loaded.device.type == "cuda" else 512),
            preemption=preemption,
        )
        self._runner = Runner(self.bridge, self.pool)
        self.passages: Passages | None = None
        self.way = EXACT
        self._ahead: tuple[list[Job], Flight] | None = None  # a step that has begun and is not settled
        self._lock = RLock()
        self._dropped: deque[Job] = deque()  # their callers went away; anybody may add, the lock's holder takes

    def another(self) -> PagedEngine:
        """An engine with memory of its own over the same weights, which keeps no passages yet. The two must not run at
        once: an adapter is laid on the weights while one of them reads with it."""
        return PagedEngine(self.loaded, products=self.products, kv_dtype=self.pool.keys.dtype)

    def start(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        priority: int = 0,
        timeout: float | None = None,
        policy: str | Policy | None = None,
        tenant: str = "",
    ) -> Stream:
        """See `Engine.start`. Lower `priority` goes first; after `timeout` seconds the answer ends where it is;
        `policy` ("snapkv(budget=0.25)") says what is kept of the KV; nothing is reused that another `tenant` read."""
        began = time.perf_counter()
        parts = self.parts(prompt)
        ids = self._fitting(parts)
        sampling.check_vocabulary(self.texts.vocabulary)
        limit = min(sampling.max_tokens, self.context_length - len(ids))
        self._check_room(len(ids) + limit)
        kept = policies.make(policy) if isinstance(policy, str) else policy
        if kept is not None and kept.keeps_all(len(ids), len(ids) + limit):
            kept = Policy()  # nothing is observed, so nothing is computed in other portions
        deadline = None if timeout is None else began + timeout
        jobs: list[Job] = []
        for number in range(sampling.n):
            source = Source(sampling, ids, sampling.ends(self.end_tokens), number)
            leader = jobs[0] if jobs and kept is None else None
            jobs.append(Job(ids, source, limit, began, priority, deadline, kept, leader, number, tenant=tenant))
        with self._lock:
            if kept is None:
                self._begin_apart(jobs, parts)
            for job in jobs:
                self.scheduler.add(job)
        stream = Stream(lambda cancelled: self._pieces(jobs, cancelled), lambda: self._drop(jobs), lambda: _told(jobs))
        weakref.finalize(stream, self._dropped.extend, jobs)
        return stream

    def explore(self, prompt: Prompt) -> Exploration:
        return self.begin_exploration(prompt).finish()

    def begin_exploration(self, prompt: Prompt, *, timeout: float | None = None, tenant: str = "") -> Reading:
        """As `explore`, for whoever does not want to wait: steps for other requests read the prompt too. `timeout` and
        `tenant`: see `start`."""
        if any(window is not None for window in self.bridge.shapes.windows):
            raise UnsupportedError(f"{self.model} has layers that do not see all of the text: it cannot be explored")
        parts = self.parts(prompt)
        ids = self._fitting(parts)
        self._check_room(len(ids))
        began = time.perf_counter()
        deadline = None if timeout is None else began + timeout
        job = Job(ids, Source(Sampling(max_tokens=1), ids), 1, began, deadline=deadline, looks=True, tenant=tenant)
        with self._lock:
            self._begin_apart([job], parts)
            self.scheduler.add(job)
        return Reading(self, job)

    def explored(self, job: Job, through: Looks | None = None) -> Exploration:
        """What `Reading.finish` gives."""
        while job.active:
            self._advance(job)
        with self._lock:
            self._write_back()
        if job.error is not None:
            raise job.error
        if job.sequence is None or job.logits is None:
            raise EndedError("the prompt was not read to its end: the request was cancelled, or its time was over")
        root = torch.log_softmax(job.logits, dim=-1)
        found = Exploration(through or self, job.sequence, job.reused or 0, root, job.loaded, job.repaired)
        weakref.finalize(found, self._dropped.append, job)
        return found

    def dismiss(self, job: Job) -> None:
        """End a job whose caller went away."""
        self._drop([job])

    def quicken(self) -> None:
        """Take the model's quick form now and not after a while, so that an answer does not depend on those before
        it."""
        with self._lock:
            if self.bridge.fast is None:
                self.bridge.quicken(self.products)
                self._runner.quicken()

    def keep_passages(self, store: KVStore, adapter: Adapter | None = None) -> None:
        """From now on read the passages of prompts (`Part`, `Message.passages`) apart, with `adapter` where there is
        one, keep them in `store`, which is the engine's from now on, and reuse them wherever they stand. Answers then
        differ from those of a full prefill, with an adapter by little (docs/reuse.md). Raises UnsupportedError for a
        model whose keys cannot be moved, ModelError for an adapter of another model."""
        if not self.bridge.relocatable:
            raise UnsupportedError(f"the keys of {self.model} cannot be moved: passages cannot be reused")
        fitting = None if adapter is None else adapter.on(self.loaded.model)
        with self._lock:
            assert self.passages is None, "passages are kept already"
            store.attach(self.pool, len(self.pool) * self.pool.page_bytes // 2)
            reader = PassageReader(
                self._runner,
                self.pool,
                (self.bridge.shapes.layers, self.bridge.shapes.kv_heads),
                store,
                fitting,
                step_tokens=self.scheduler.step_tokens,
                room=self.scheduler.evict,
                meanwhile=self.step,
                prefix=self.scheduler.prefix,
            )
            self.passages = Passages(reader)
            self.scheduler.keepers.append(self.passages)
        weakref.finalize(self, store.close)

    def read_ahead(self, prompt: Prompt, *, tenant: str = "") -> int:
        """Read the passages of a prompt that are not kept yet, and keep them for `tenant`. Returns how many tokens were
        read. Raises UnsupportedError where the engine keeps none, ModelError where there is no room."""
        if self.passages is None:
            raise UnsupportedError(
                f"{self.model} keeps no passages, so nothing can be read ahead: `longreach doctor {self.model}` tells "
                "what keeping them costs, and the setting reuse asks for it"
            )
        opening, passages = split(self.parts(prompt))
        with self._lock, torch.inference_mode():
            try:
                read = self.passages.read_ahead(opening, passages, tenant)
            except OutOfPagesError as error:
                raise ModelError(f"no memory to read ahead: {error}; give kv_bytes more") from None
            before, self._read_ahead = self._read_ahead, self._read_ahead + read
            if before < QUICK_AFTER_READING <= self._read_ahead:
                self.quicken()
        store = self.passages.store
        while store.unwritten:  # more than may wait to be written: what lies in pages alone may have to leave them
            store.flush()
            with self._lock:
                store.write_back()
        return read

    def catch_up(self) -> bool:
        """In time that nobody wants, read a passage that was put off when a prompt had it. False where there is none,
        or a request is on its way."""
        with self._lock, torch.inference_mode():
            if self.passages is None or self.scheduler.running or self.scheduler.waiting:
                return False
            return self.passages.catch_up()

    @property
    def keeps_passages(self) -> bool:
        return self.passages is not None

    def kept(self, prompt: Prompt) -> list[bool]:
        if self.passages is None:
            return []
        opening, passages = split(self.parts(prompt))
        return self.passages.kept(opening, passages)

    def forget(self) -> None:
        """Let go of what is kept of past requests for reuse, passages too: those on disk as well."""
        with self._lock:
            self._settle_dropped()
            if self.passages is not None:
                self.passages.clear()
            if self.scheduler.prefix is not None:
                self.scheduler.prefix.clear()

    def kv_bytes_of(self, tokens: int) -> int:
        """What the keys and values of so many tokens take."""
        return self.scheduler.pages_for(tokens) * self.pool.page_bytes

    def held_pages(self) -> dict[str, int]:
        """How many pages of the pool are held by requests, by what is kept of past ones (`prefix`) and by passages and
        what opens prompts (`passages`), and how many are `free`. One that several hold counts for the first of
        these."""
        with self._lock:
            prefix = () if self.scheduler.prefix is None else self.scheduler.prefix.segments()
            requests = (job.sequence.segments for job in self.scheduler.running if job.sequence is not None)
            by_owner = {"requests": itertools.chain.from_iterable(requests), "prefix": prefix}
            seen, held = np.zeros(len(self.pool), np.bool_), {}
            for owner, segments in by_owner.items():
                before = int(seen.sum())
                for segment in segments:
                    seen[segment.pages] = True
                held[owner] = int(seen.sum()) - before
            return {**held, "passages": self.pool.used - int(seen.sum()), "free": self.pool.free}

    def look(self, found: Exploration, tokens: list[int], positions: list[int], sees: torch.Tensor) -> torch.Tensor:
        """Logits `[new, vocab]` (float32) of tree nodes; `sees [new, nodes]` says which nodes each attends to."""
        with self._lock, torch.inference_mode():
            return self._runner.run_tree(found.tree, tokens, positions, sees)

    def step(self) -> bool:
        """Compute the next step, for all requests. False where there is nothing to do."""
        with self._lock, torch.inference_mode():
            self._settle_dropped()
            self._settle_late()
            if self._ahead is not None:
                jobs, flight = self._ahead
                return self._try(jobs, lambda: self._land(jobs, flight))
            work = self.scheduler.schedule()
            if not work:
                return False
            if self._runner.can_fly(work):
                jobs = [job for job, _ in work]
                return self._try(jobs, lambda: self._land(jobs, self._runner.fly(jobs)))
            self._short_steps += len(work) == sum(count for _, count in work)
            if self._short_steps == QUICK_AFTER:
                self.quicken()
            return self._try([job for job, _ in work], lambda: self._compute(work))

    def _compute(self, work: list[tuple[Job, int]]) -> None:
        """A step from its beginning to its end."""
        finished, logits = self._runner.run(work)
        if finished:
            sampled = sample(logits, [Draw(job.source, job.output) for job in finished])
            for job, row, token, told in zip(finished, logits, sampled.tokens, sampled.logprobs, strict=True):
                self._settle(job, row, token, told)

    def _land(self, jobs: list[Job], flight: Flight) -> None:
        """Let the step after `flight` begin where that is the same for the same jobs, then settle `flight`."""
        self._ahead = None
        if not self.scheduler.waiting and all(job.active and job.left > 1 and job.room > 0 for job in jobs):
            self._ahead = jobs, self._runner.fly(jobs, blind=True)
        tokens = flight.tokens()
        if self._ahead is not None:
            self._ahead[1].fill(tokens)
        for job, token in zip(jobs, tokens, strict=True):
            if job.active:
                self._settle(job, None, token, None)

    def _try(self, jobs: list[Job], step: Callable[[], None]) -> bool:
        """Let `jobs` fail, and no others, where their step does."""
        try:
            step()
        except Exception as error:
            for job in jobs:
                self._fail(job, _explained(error, self.loaded.device))
        return True

    def _advance(self, job: Job) -> None:
        """Compute a step, unless another thread did meanwhile what `job` waits for."""
        with self._lock:
            if job.pieces or not job.active or self.step():
                return
            if job.active and not job.pieces:
                self._fail(job, ModelError("no memory for keys and values is left: give kv_bytes more, or ask later"))

    def _pieces(self, jobs: list[Job], cancelled: Event) -> Generator[Piece, None, Completion]:
        """The pieces of all samples of one prompt as they come, and their completion."""
        while not cancelled.is_set():
            ready = next((job for job in jobs if job.pieces), None)
            failed = next((job.error for job in jobs if job.error is not None), None)
            waiting = next((job for job in jobs if job.active), None)
            if ready is not None:
                yield ready.pieces.popleft()
            elif failed is not None:
                raise failed
            elif waiting is None:
                break
            else:
                self._advance(waiting)
        else:
            self._drop(jobs)
        first, *others = [self._completion(job) for job in jobs]
        return replace(first, others=tuple(others))

    def _settle(self, job: Job, logits: torch.Tensor | None, token: int | None, told: TokenLogprobs | None) -> None:
        """What a job that computed all it knew goes on with: `token`, None where `logits [vocab]` are no numbers."""
        assert job.sequence is not None
        if token is None:
            for segment in job.sequence.segments:
                self.pool.scrub(segment.pages)  # not what others hold too: that was read before, and is sound
            self._fail(job, ModelError(_NO_NUMBERS))
            return
        if not job.output and job.exact and self.scheduler.prefix is not None:
            self.scheduler.prefix.put(job.sequence, job.tenant)
        if job.looks:
            job.logits, job.reason = logits, "stop"
            self.scheduler.running.remove(job)
            job.release_beginning()  # the sequence, which is explored, has a share of its own
            return
        job.output.append(token)
        self.scheduler.unshare(job)
        self._runner.compact(job)
        job.ttft = job.ttft or time.perf_counter() - job.began
        sampling = job.source.sampling
        ended = token in job.source.ends
        final = ended or job.left == 0
        show = job.visible.pass_over if len(job.output) <= sampling.min_tokens else job.visible.update
        logprobs = () if told is None else (told,)
        job.logprobs += logprobs
        job.spelling = job.spelling or Spelling(self.decode)
        job.pieces.append(Piece(show(job.spelling.of(job.output), final=final), token, job.sample, logprobs))
        if ended or job.visible.stopped:
            self._end(job, "stop")
        elif final:
            self._end(job, "length")

    def _end(self, job: Job, reason: Literal["stop", "length", "cancelled"]) -> None:
        if not job.active:
            return
        job.reason, job.ended = reason, time.perf_counter()
        if job.sequence is not None:
            job.kv_bytes = job.sequence.pages * self.pool.page_bytes
            known = job.missing >= 0  # of a step that has begun, the token may not be known yet
            if known and job.exact and job.read and job.swapped is None and self.scheduler.prefix is not None:
                self.scheduler.prefix.put(job.sequence, job.tenant)
        self.scheduler.remove(job)

    def _fail(self, job: Job, error: Exception) -> None:
        job.error, job.ended = error, time.perf_counter()
        self.scheduler.remove(job)

    def _drop(self, jobs: list[Job]) -> None:
        """The caller went away: its pages are free at once, or after the step that is being computed."""
        self._dropped.extend(jobs)
        if self._lock.acquire(blocking=False):
            try:
                self._settle_dropped()
            finally:
                self._lock.release()

    def _settle_dropped(self) -> None:
        while self._dropped:
            job = self._dropped.popleft()
            if job.active:
                self._end(job, "cancelled")
            elif job.looks:
                job.release()

    def _settle_late(self) -> None:
        now = time.perf_counter()
        for job in [*self.scheduler.running, *self.scheduler.waiting]:
            if job.deadline is not None and now > job.deadline:
                self._end(job, "cancelled")

    def _completion(self, job: Job) -> Completion:
        with self._lock:
            self._settle_dropped()
            self._write_back()
        timing = Timing(ttft=job.ttft, total=job.ended - job.began)
        usage = Usage(
            prompt_tokens=len(job.prompt),
            reused_tokens=job.reused or 0,
            generated_tokens=len(job.output),
            kv_bytes=job.kv_bytes,
            loaded_tokens=job.loaded,
            recomputed_tokens=job.repaired,
        )
        assert job.reason is not None
        return Completion(job.visible.text, tuple(job.output), job.reason, timing, usage, tuple(job.logprobs))

    def _write_back(self) -> None:
        """Have the passages that were read written to the store, unless somebody waits for a first token."""
        jobs = (*self.scheduler.running, *self.scheduler.waiting)
        if self.passages is not None and all(job.ttft for job in jobs):
            self.passages.store.write_back()

    def _begin_apart(self, jobs: list[Job], parts: Sequence[Part]) -> None:
        """Let `jobs` of one prompt begin with its passages, read apart, where the engine keeps them."""
        if self.passages is None:
            return
        opening, passages = split(parts)
        if sum(map(len, passages)) + len(opening) == len(jobs[0].prompt):
            passages = passages[:-1]  # something must be left to compute, whose logits tell the next token
        if not passages or not opening:
            return
        with torch.inference_mode():
            before = len(opening) + sum(map(len, passages))
            begun = self.passages.begin(opening, passages, jobs[0].prompt[before:], jobs[0].tenant)
        if begun is None:
            return
        for job in jobs:
            job.begins, job.unread = [segment.share() for segment in begun.segments], begun.read
            job.loaded, job.repaired = begun.loaded, begun.repaired
            job.leader = None  # what they share, each has already
        begun.release()

    def _fitting(self, parts: Sequence[Part]) -> list[int]:
        ids = [token for part in parts for token in part.token_ids]
        if len(ids) + 1 > self.context_length:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens, and {self.model} reads {self.context_length} with "
                "the answer: shorten it"
            )
        return ids

    def _check_room(self, tokens: int) -> None:
        if self.scheduler.pages_for(tokens) > len(self.pool):
            room = len(self.pool) // self.scheduler.pages_for(1) * self.pool.page_size
            raise PromptTooLongError(
                f"prompt and answer have up to {tokens} tokens, and the memory for keys and values holds {room}: "
                "shorten them, or give kv_bytes more"
            )


def _told(jobs: Sequence[Job]) -> bool:
    """Whether the next piece of one of `jobs`, an error or the end of all of them can be told."""
    return any(job.pieces or job.error is not None for job in jobs) or not any(job.active for job in jobs)


def _explained(error: Exception, device: torch.device) -> Exception:
    if isinstance(error, torch.OutOfMemoryError):
        return ModelError(f"no memory left on {device}: shorten the prompt, or use a smaller model or another device")
    return error
