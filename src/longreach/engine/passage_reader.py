"""Reading passages, and what stands before them, so that they can be kept.

A passage is read right behind what opens the prompt, and not behind the passages that happen to stand before it, so
that its keys and values serve any prompt with that opening (Block-Attention, arXiv 2409.15355). Where the model has an
adapter for it, it is read with the adapter, which makes up for what the passage does not see.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from longreach.engine.loading import Loading
from longreach.engine.runner import Runner
from longreach.kv.pool import OutOfPagesError, PagePool
from longreach.kv.prefix import PrefixCache
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence as KVSequence
from longreach.kv.store.key import Key
from longreach.kv.store.open_entry import OpenEntry
from longreach.kv.store.pages import gather
from longreach.kv.store.rate import Rate
from longreach.kv.store.store import KVStore
from longreach.model.adapter import Adapter

OPENINGS = 4
"""Openings whose KV is held: those used last."""
BEHIND = 64
"""Passages that may lie in pages alone before they are written, whoever waits."""


class PassageReader:
    """Reads for `store`, at most `step_tokens` tokens in a step, and tells `rate` how long it took. `room(pages)` makes
    so many pages free, or says that it cannot; between two steps `meanwhile` lets other requests go on; `prefix` is
    given what opens prompts, once it was read, for prompts that are read as a whole."""

    def __init__(
        self,
        runner: Runner,
        pool: PagePool,
        streams: tuple[int, int],
        store: KVStore,
        adapter: Adapter | None,
        *,
        step_tokens: int,
        room: Callable[[int], bool],
        meanwhile: Callable[[], object],
        prefix: PrefixCache | None = None,
    ) -> None:
        self.runner = runner
        self.pool = pool
        self.streams = streams
        self.store = store
        self.step_tokens = step_tokens
        self.meanwhile = meanwhile
        self.filler: tuple[int, ...] = ()
        self.rate = Rate()
        self._adapter = adapter
        self._read_with = "" if adapter is None else adapter.name
        self._room = room
        self._prefix = prefix
        self._openings: OrderedDict[tuple[str, tuple[int, ...]], KVSequence] = OrderedDict()

    def key(self, opening: Sequence[int], passage: Sequence[int], tenant: str = "") -> Key:
        """Of what a passage is once `tenant` has read it behind `opening`."""
        behind = f"{_named(opening)}+{self._read_with}"
        if self.filler:
            behind += f"~{_named(self.filler)}"
        return self.store.key(passage, f"{behind}{_of(tenant)}")

    def holds(self, opening: tuple[int, ...], tenant: str) -> bool:
        """Whether what opens prompts lies in pages."""
        kept = self.store.key(opening, _of(tenant))
        return (tenant, opening) in self._openings or self.store.where(kept) == "device"

    def opening(self, tokens: tuple[int, ...], tenant: str) -> tuple[KVSequence, int]:
        """What opens prompts, and how many tokens of it were read now."""
        known = tenant, tokens
        if known in self._openings:
            self._openings.move_to_end(known)
            return self._openings[known], 0
        sequence, key, read = KVSequence(self.pool, *self.streams), self.store.key(tokens, _of(tenant)), 0
        try:
            segment = self._known(key)
            if segment is not None:
                sequence.add(segment)
            else:
                began, read = time.perf_counter(), len(tokens)
                self.reserve(len(tokens))
                sequence.reserve(len(tokens))
                for at in range(0, len(tokens), self.step_tokens):
                    self.runner.read([sequence], [tokens[at : at + self.step_tokens]], None)
                self._keep(key, sequence.segments[-1], self._took(read, began))
                if self._prefix is not None:  # what was loaded is rounded, and prefixes are exact
                    self._prefix.put(sequence, tenant)
        except BaseException:
            sequence.release()
            raise
        self._openings[known] = sequence
        if len(self._openings) > OPENINGS:
            self._openings.popitem(last=False)[1].release()
        return sequence, read

    def read(self, opening: tuple[int, ...], keys: Sequence[Key], tenant: str) -> list[tuple[Key, Segment]]:
        """Read passages behind `opening` and keep them; their segments are the caller's to release."""
        done: list[tuple[Key, Segment]] = []
        head, _ = self.opening(opening, tenant)
        before = head.share(head.position)  # it may be let go of meanwhile, for want of room
        filler: Segment | None = None
        try:
            if self.filler:
                filler = self._filler_behind(opening, before, tenant)
                before.append(filler)
            for batch in batches(keys, self.step_tokens):
                if done:
                    self.meanwhile()
                done += self._read_batch(before, filler, batch)
        except BaseException:
            for _, segment in done:
                segment.release()
            raise
        finally:
            for segment in before:
                segment.release()
        return done

    def resident(self, key: Key, found: dict[Key, Segment]) -> bool:
        """Whether a passage lies in pages; then `found` has it, for the caller to release."""
        segment = self.store.resident(key)
        if segment is not None:
            found[key] = segment
        return segment is not None

    def place(self, found: dict[Key, Segment], key: Key, entry: OpenEntry) -> None:
        """Have what was loaded in pages, and in `found`. Raises OutOfPagesError."""
        self.reserve(len(key.tokens))
        found[key] = self.store.place(key, entry)

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens. Raises OutOfPagesError."""
        pages = self.streams[0] * self.streams[1] * -(-tokens // self.pool.page_size)
        if not self._room(pages):
            raise OutOfPagesError(f"{pages} pages are needed and {self.pool.free} are free")

    def drop_opening(self) -> bool:
        """Let go of the opening that was used first; False where there is none."""
        if not self._openings:
            return False
        self._openings.popitem(last=False)[1].release()
        return True

    def _read_batch(
        self, before: Sequence[Segment], filler: Segment | None, keys: Sequence[Key]
    ) -> list[tuple[Key, Segment]]:
        """Read passages in one step, each right behind the segments `before`, of which one may be `filler`."""
        sequences: list[KVSequence] = []
        done: list[tuple[Key, Segment]] = []
        began = time.perf_counter()
        try:
            for key in keys:
                self.reserve(len(key.tokens))
                sequence = KVSequence(self.pool, *self.streams)
                sequences.append(sequence)
                for segment in before:
                    sequence.add(segment.share())
                sequence.reserve(len(key.tokens))
            texts = [key.tokens for key in keys]
            if filler is None:
                self.runner.read(sequences, texts, self._adapter)
            else:
                noted = self.runner.read_noting(sequences, texts, self._adapter, filler)
                for sequence, outward in zip(sequences, noted, strict=True):
                    sequence.segments[-1].outward = outward
            tokens = sum(map(len, texts))
            seconds = self._took(tokens, began) / tokens
            for key, sequence in zip(keys, sequences, strict=True):
                segment = sequence.segments[-1].share()
                done.append((key, segment))
                self._keep(key, segment, seconds * len(key.tokens))
        except BaseException:
            for _, segment in done:
                segment.release()
            raise
        finally:
            for sequence in sequences:
                sequence.release()
        return done

    def _known(self, key: Key) -> Segment | None:
        """What was read before, in pages, or loaded where that is sooner than reading it. It is the caller's to
        release."""
        found: dict[Key, Segment] = {}
        if not self.resident(key, found):
            Loading(self.store, self.rate, [key]).run(partial(self.place, found), lambda keys: keys)
        return found.get(key)

    def _filler_behind(self, opening: tuple[int, ...], before: Sequence[Segment], tenant: str) -> Segment:
        """The filler right behind `before`, what opens a prompt: kept, or read now. It is the caller's to release."""
        key = self.store.key(self.filler, f"{_named(opening)}+{self._read_with}{_of(tenant)}")
        segment = self._known(key)
        if segment is None:
            ((_, segment),) = self._read_batch(before, None, [key])
        return segment

    def _took(self, tokens: int, began: float) -> float:
        """Seconds since `began`, in which so many tokens were read."""
        seconds = time.perf_counter() - began
        self.rate.note(tokens, seconds)
        return seconds

    def _keep(self, key: Key, segment: Segment, seconds: float) -> None:
        """Have it in pages for now: to encode and write it while somebody waits for a first token would delay that."""
        if not self.store.keep(key, segment, seconds):
            self.store.offer(key, gather(segment, seconds))
        elif self.store.unwritten > BEHIND:
            self.store.write_back()


def _named(tokens: Sequence[int]) -> str:
    """A name for what stands before passages."""
    return hashlib.blake2b(repr(tuple(tokens)).encode(), digest_size=12).hexdigest()


def _of(tenant: str) -> str:
    """What tells the passages of a tenant from those of others."""
    return tenant and f"@{hashlib.blake2b(tenant.encode(), digest_size=12).hexdigest()}"


def batches(keys: Sequence[Key], most: int) -> list[list[Key]]:
    """`keys` in groups of at most `most` tokens, or of one."""
    groups: list[list[Key]] = []
    size = most + 1
    for key in keys:
        if size + len(key.tokens) > most:
            groups.append([])
            size = 0
        groups[-1].append(key)
        size += len(key.tokens)
    return groups
