"""Passages that were read before: found, or read now, and put where a prompt has them.

A passage is read right behind what opens the prompt, and not behind the passages that happen to stand before it, so
that its keys and values serve any prompt with that opening (Block-Attention, arXiv 2409.15355). Where the model has an
adapter for it, it is read with the adapter, which makes up for what the passage does not see.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from longreach.engine.beside import side_by_side
from longreach.engine.loading import Loading
from longreach.engine.postponed import FILE, Met, Postponed
from longreach.engine.repair import Repair
from longreach.engine.runner import Runner
from longreach.errors import UnsupportedError
from longreach.kv.pool import OutOfPagesError, PagePool
from longreach.kv.prefix import PrefixCache
from longreach.kv.reuse import Reuse
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence as KVSequence
from longreach.kv.store.entry import Entry
from longreach.kv.store.key import Key
from longreach.kv.store.pages import gather
from longreach.kv.store.rate import Rate
from longreach.kv.store.store import KVStore
from longreach.kv.temper import Temper
from longreach.model.adapter import Adapter

OPENINGS = 4
"""Openings whose KV is held: those used last."""
BEHIND = 64
"""Passages that may lie in pages alone before they are written, whoever waits."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The beginning of a prompt in pages, held for whoever uses it; `read` of its tokens had to be computed now, and
    `loaded` came up from host memory or disk; `repaired` were computed again."""

    segments: list[Segment]
    read: int
    loaded: int = 0
    repaired: int = 0

    def release(self) -> None:
        """Let go of it."""
        for segment in self.segments:
            segment.release()


class Passages:
    """The passages that one engine keeps. `room(pages)` makes so many pages free, or says that it cannot; between two
    steps of reading `meanwhile` lets other requests go on; `prefix` is given what opens prompts, once it was read, for
    prompts that are read as a whole. For the holder of the engine's lock."""

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
        self.store = store
        self._runner = runner
        self._pool = pool
        self._streams = streams
        self._adapter = adapter
        self._read_with = "" if adapter is None else adapter.name
        self._step_tokens = step_tokens
        self._room = room
        self._meanwhile = meanwhile
        self._prefix = prefix
        self._openings: OrderedDict[tuple[str, tuple[int, ...]], KVSequence] = OrderedDict()
        self._repair: Repair | None = None
        self._temper: Temper | None = None
        self._postponed: Postponed | None = None
        self._reading = Rate()
        self._filler: tuple[int, ...] = ()

    def read_behind(self, filler: Sequence[int]) -> None:
        """From now on read passages behind `filler` too, right behind what opens the prompt, which leaves them again
        where they are used; and note how much each of their tokens attended to it. They are others than those that were
        read without."""
        self._filler = tuple(filler)

    def repair_by(self, method: Reuse | None) -> None:
        """From now on repair passages by `method` before a prompt uses them, or let them stand side by side, as it
        has it; by None, use them as they are. Raises UnsupportedError for a method that the model cannot go, or that
        wants passages to be read behind filler where they are not (`read_behind`)."""
        if method is not None and method.notes and not self._filler:
            raise UnsupportedError(
                f"{type(method).__name__} is for passages that were read behind filler: these are not"
            )
        self._repair, self._temper = None, None
        if method is not None and method.parallel:
            if self._runner.windowed:
                raise UnsupportedError("passages cannot stand side by side where layers see only a part of the text")
            self._temper = method.temper
        elif method is not None:
            parts = self._runner, self._pool, self._streams
            self._repair = Repair(*parts, method, self._step_tokens, self._reserve)

    def postpone(self, wanted: bool = True) -> None:
        """From now on have a prompt read as a whole where most of its passages are new: with repair that is sooner than
        reading them apart, and exact. They are read apart by `catch_up`, or when a prompt has them again. Not `wanted`,
        read them apart always."""
        self._postponed = Postponed(self.store.beside(FILE)) if wanted else None

    def catch_up(self) -> bool:
        """Read one passage that was postponed; False where there is none, or no room for it."""
        while self._postponed is not None and (found := self._postponed.take()) is not None:
            key, met = found
            if self.store.where(key) is None:
                try:
                    return self.read_ahead(met.opening, [key.tokens], met.tenant) > 0
                except OutOfPagesError:
                    return False
        return False

    def begin(
        self,
        opening: Sequence[int],
        passages: Sequence[Sequence[int]],
        question: Sequence[int] = (),
        tenant: str = "",
    ) -> Begun | None:
        """`opening` and `passages` as a prompt of `tenant` has them before `question`; None where there is no room for
        them apart, or they are postponed."""
        found: dict[Key, Segment] = {}
        held: list[Segment] = []
        try:
            keys = [self.key(opening, passage, tenant) for passage in passages]
            if self._held_back(set(keys), Met(tuple(opening), tenant)):
                return None
            wanted = len(opening) + sum(len(key.tokens) for key in set(keys))
            lay = self._in_pages(tuple(opening), set(keys), tenant)
            head, read = self._opening(tuple(opening), tenant)
            held += head.share(len(opening))
            read += self._obtain(tuple(opening), list(dict.fromkeys(keys)), found, tenant)
            place = len(opening)
            for key in keys:
                segment = found[key].share()
                segment.shift = place - segment.start
                held.append(segment)
                place += len(key.tokens)
            if self._temper is not None:
                held = side_by_side(held[0], held[1:], self._temper)
            elif self._repair is not None and question:
                held = self._repair(held[0], held[1:], question)
            repaired = sum(len(segment) for segment in held if not segment.whole)
            return Begun(held, read, max(0, wanted - lay - read), repaired)
        except BaseException as error:
            Begun(held, 0).release()
            if isinstance(error, OutOfPagesError):
                return None
            raise
        finally:
            for segment in found.values():
                segment.release()

    def read_ahead(self, opening: Sequence[int], passages: Sequence[Sequence[int]], tenant: str = "") -> int:
        """Have `passages` in the store for `tenant`, and say how many tokens had to be read for that. Raises
        OutOfPagesError."""
        keys = dict.fromkeys(self.key(opening, passage, tenant) for passage in passages)
        missing = [key for key in keys if self.store.where(key) is None]
        if missing:
            for _, segment in self._read(tuple(opening), missing, tenant):
                segment.release()
            self.store.write_back()
        return sum(len(key.tokens) for key in missing)

    def kept(self, opening: Sequence[int], passages: Sequence[Sequence[int]], tenant: str = "") -> list[bool]:
        """Of each passage, whether it is kept for `tenant`; a damaged one is not found out here."""
        return [self.store.where(self.key(opening, passage, tenant)) is not None for passage in passages]

    def key(self, opening: Sequence[int], passage: Sequence[int], tenant: str = "") -> Key:
        """Of what a passage is once `tenant` has read it behind `opening`."""
        behind = f"{_named(opening)}+{self._read_with}"
        if self._filler:
            behind += f"~{_named(self._filler)}"
        return self.store.key(passage, f"{behind}{_of(tenant)}")

    def evict(self, pages: int) -> bool:
        """Let go of passages and openings that no request uses until `pages` are free; False where that cannot be."""
        while not self.store.evict(pages) and self._openings:
            self._openings.popitem(last=False)[1].release()
        return self._pool.free >= pages

    def clear(self) -> None:
        """Let go of every opening, and of all that the store holds of this model."""
        self.store.clear()
        if self._postponed is not None:
            self._postponed.clear()
        while self._openings:
            self._openings.popitem()[1].release()

    def _held_back(self, keys: Collection[Key], met: Met) -> bool:
        """Whether a prompt with these passages is to be read as a whole."""
        if self._postponed is None:
            return False
        missing = [key for key in keys if self.store.where(key) is None]
        return self._postponed.holds_back(missing, sum(len(key.tokens) for key in keys), met)

    def _in_pages(self, opening: tuple[int, ...], keys: Iterable[Key], tenant: str) -> int:
        """How many tokens of a prompt's beginning lie in pages."""
        held = (tenant, opening) in self._openings or self.store.where(self.store.key(opening, _of(tenant))) == "device"
        there = sum(len(key.tokens) for key in keys if self.store.where(key) == "device")
        return there + (len(opening) if held else 0)

    def _obtain(self, opening: tuple[int, ...], keys: Sequence[Key], found: dict[Key, Segment], tenant: str) -> int:
        """Have passages in pages: those that are there, loaded, or read now, whichever is sooner. Returns how many
        tokens were read."""
        missing = [key for key in keys if not self._resident(key, found)]
        read: list[Key] = []

        def read_some(keys: list[Key]) -> list[Key]:
            if read:
                self._meanwhile()
            batch = _batches(keys, self._step_tokens)[0]
            found.update(self._read(opening, batch, tenant))
            read.extend(batch)
            return batch

        Loading(self.store, self._reading, missing).run(partial(self._place, found), read_some)
        return sum(len(key.tokens) for key in read)

    def _resident(self, key: Key, found: dict[Key, Segment]) -> bool:
        segment = self.store.resident(key)
        if segment is not None:
            found[key] = segment
        return segment is not None

    def _place(self, found: dict[Key, Segment], key: Key, entry: Entry) -> None:
        self._reserve(len(key.tokens))
        found[key] = self.store.place(key, entry)

    def _opening(self, tokens: tuple[int, ...], tenant: str) -> tuple[KVSequence, int]:
        """What opens prompts, and how many tokens of it were read now."""
        known = tenant, tokens
        if known in self._openings:
            self._openings.move_to_end(known)
            return self._openings[known], 0
        sequence, key, read = KVSequence(self._pool, *self._streams), self.store.key(tokens, _of(tenant)), 0
        found: dict[Key, Segment] = {}
        try:
            if not self._resident(key, found):
                Loading(self.store, self._reading, [key]).run(partial(self._place, found), lambda keys: keys)
            if key in found:
                sequence.add(found[key])
            else:
                began, read = time.perf_counter(), len(tokens)
                self._reserve(len(tokens))
                sequence.reserve(len(tokens))
                for at in range(0, len(tokens), self._step_tokens):
                    self._runner.read([sequence], [tokens[at : at + self._step_tokens]], None)
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

    def _read(self, opening: tuple[int, ...], keys: Sequence[Key], tenant: str) -> list[tuple[Key, Segment]]:
        """Read passages behind `opening` and keep them; their segments are the caller's to release."""
        done: list[tuple[Key, Segment]] = []
        head, _ = self._opening(opening, tenant)
        before = head.share(head.position)  # it may be let go of meanwhile, for want of room
        filler: Segment | None = None
        try:
            if self._filler:
                filler = self._filler_behind(opening, before, tenant)
                before.append(filler)
            for batch in _batches(keys, self._step_tokens):
                if done:
                    self._meanwhile()
                done += self._read_batch(before, filler, batch)
        except BaseException:
            for _, segment in done:
                segment.release()
            raise
        finally:
            for segment in before:
                segment.release()
        return done

    def _read_batch(
        self, before: Sequence[Segment], filler: Segment | None, keys: Sequence[Key]
    ) -> list[tuple[Key, Segment]]:
        """Read passages in one step, each right behind the segments `before`, of which one may be `filler`."""
        sequences: list[KVSequence] = []
        done: list[tuple[Key, Segment]] = []
        began = time.perf_counter()
        try:
            for key in keys:
                self._reserve(len(key.tokens))
                sequence = KVSequence(self._pool, *self._streams)
                sequences.append(sequence)
                for segment in before:
                    sequence.add(segment.share())
                sequence.reserve(len(key.tokens))
            texts = [key.tokens for key in keys]
            if filler is None:
                self._runner.read(sequences, texts, self._adapter)
            else:
                noted = self._runner.read_noting(sequences, texts, self._adapter, filler)
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

    def _filler_behind(self, opening: tuple[int, ...], before: Sequence[Segment], tenant: str) -> Segment:
        """The filler right behind `before`, what opens a prompt: kept, or read now. It is the caller's to release."""
        key = self.store.key(self._filler, f"{_named(opening)}+{self._read_with}{_of(tenant)}")
        segment = self.store.resident(key)
        if segment is None and (entry := self.store.get(key)) is not None:
            self._reserve(len(key.tokens))
            segment = self.store.place(key, entry)
        if segment is None:
            ((_, segment),) = self._read_batch(before, None, [key])
        return segment

    def _took(self, tokens: int, began: float) -> float:
        """Seconds since `began`, in which so many tokens were read."""
        seconds = time.perf_counter() - began
        self._reading.note(tokens, seconds)
        return seconds

    def _keep(self, key: Key, segment: Segment, seconds: float) -> None:
        """Have it in pages for now: to encode and write it while somebody waits for a first token would delay that."""
        if not self.store.keep(key, segment, seconds):
            self.store.offer(key, gather(segment, seconds))
        elif self.store.unwritten > BEHIND:
            self.store.write_back()

    def _reserve(self, tokens: int) -> None:
        pages = self._streams[0] * self._streams[1] * -(-tokens // self._pool.page_size)
        if not self._room(pages):
            raise OutOfPagesError(f"{pages} pages are needed and {self._pool.free} are free")


def _named(tokens: Sequence[int]) -> str:
    """A name for what stands before passages."""
    return hashlib.blake2b(repr(tuple(tokens)).encode(), digest_size=12).hexdigest()


def _of(tenant: str) -> str:
    """What tells the passages of a tenant from those of others."""
    return tenant and f"@{hashlib.blake2b(tenant.encode(), digest_size=12).hexdigest()}"


def _batches(keys: Sequence[Key], most: int) -> list[list[Key]]:
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
