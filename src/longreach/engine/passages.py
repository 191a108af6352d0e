"""Passages that were read before: found, or read now, and put where a prompt has them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from longreach.engine.arriving import Arriving, NotThereError
from longreach.engine.beside import side_by_side
from longreach.engine.loading import Loading
from longreach.engine.passage_reader import PassageReader, batches
from longreach.engine.postponed import FILE, Met, Postponed
from longreach.engine.repair import Repair
from longreach.errors import UnsupportedError
from longreach.kv.pool import OutOfPagesError
from longreach.kv.reuse import Reuse
from longreach.kv.segment import Segment
from longreach.kv.store.key import Key
from longreach.kv.temper import Temper


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
    """The passages that one engine keeps in the store of `reader`, who reads what is missing. For the holder of the
    engine's lock."""

    def __init__(self, reader: PassageReader) -> None:
        self.store = reader.store
        self._reader = reader
        self._repair: Repair | None = None
        self._temper: Temper | None = None
        self._postponed: Postponed | None = None

    def read_behind(self, filler: Sequence[int]) -> None:
        """From now on read passages behind `filler` too, right behind what opens the prompt, which leaves them again
        where they are used; and note how much each of their tokens attended to it. They are others than those that were
        read without."""
        self._reader.filler = tuple(filler)

    def repair_by(self, method: Reuse | None) -> None:
        """From now on repair passages by `method` before a prompt uses them, or let them stand side by side, as it
        has it; by None, use them as they are. Raises UnsupportedError for a method that the model cannot go, or that
        wants passages to be read behind filler where they are not (`read_behind`)."""
        if method is not None and method.notes and not self._reader.filler:
            raise UnsupportedError(
                f"{type(method).__name__} is for passages that were read behind filler: these are not"
            )
        self._repair, self._temper = None, None
        if method is not None and method.parallel:
            if self._reader.runner.windowed:
                raise UnsupportedError("passages cannot stand side by side where layers see only a part of the text")
            self._temper = method.temper
        elif method is not None:
            by = self._reader
            self._repair = Repair(by.runner, by.pool, by.streams, method, by.step_tokens, by.reserve)

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
            head, read = self._reader.opening(tuple(opening), tenant)
            held += head.share(len(opening))
            missing = [key for key in dict.fromkeys(keys) if not self._reader.resident(key, found)]
            loading = Loading(self.store, self._reader.rate, missing)
            together = None
            if missing and question and self._repair is not None:
                together = self._repaired_meanwhile(self._repair, loading, held[0], keys, found, question)
            if together is None:
                read += self._obtain(tuple(opening), loading, found, tenant)
                held += _in_place(keys, found, len(opening))
                if self._temper is not None:
                    held = side_by_side(held[0], held[1:], self._temper)
                elif self._repair is not None and question:
                    held = self._repair(held[0], held[1:], question)
            else:
                held = together
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
            for _, segment in self._reader.read(tuple(opening), missing, tenant):
                segment.release()
            self.store.write_back()
        return sum(len(key.tokens) for key in missing)

    def kept(self, opening: Sequence[int], passages: Sequence[Sequence[int]], tenant: str = "") -> list[bool]:
        """Of each passage, whether it is kept for `tenant`; a damaged one is not found out here."""
        return [self.store.where(self.key(opening, passage, tenant)) is not None for passage in passages]

    def key(self, opening: Sequence[int], passage: Sequence[int], tenant: str = "") -> Key:
        """Of what a passage is once `tenant` has read it behind `opening`."""
        return self._reader.key(opening, passage, tenant)

    def evict(self, pages: int) -> bool:
        """Let go of passages and openings that no request uses until `pages` are free; False where that cannot be."""
        while not self.store.evict(pages) and self._reader.drop_opening():
            pass
        return self._reader.pool.free >= pages

    def clear(self) -> None:
        """Let go of every opening, and of all that the store holds of this model."""
        self.store.clear()
        if self._postponed is not None:
            self._postponed.clear()
        while self._reader.drop_opening():
            pass

    def _held_back(self, keys: Collection[Key], met: Met) -> bool:
        """Whether a prompt with these passages is to be read as a whole."""
        if self._postponed is None:
            return False
        missing = [key for key in keys if self.store.where(key) is None]
        return self._postponed.holds_back(missing, sum(len(key.tokens) for key in keys), met)

    def _in_pages(self, opening: tuple[int, ...], keys: Iterable[Key], tenant: str) -> int:
        """How many tokens of a prompt's beginning lie in pages."""
        there = sum(len(key.tokens) for key in keys if self.store.where(key) == "device")
        return there + (len(opening) if self._reader.holds(opening, tenant) else 0)

    def _repaired_meanwhile(
        self,
        repair: Repair,
        loading: Loading,
        opening: Segment,
        keys: Sequence[Key],
        found: Mapping[Key, Segment],
        question: Sequence[int],
    ) -> list[Segment] | None:
        """The segments of a prompt, repaired while those that are not in `found` come into pages, layer by layer. None
        where one is better read, or does not come: then nothing was done. Raises OutOfPagesError."""
        opened = loading.open()
        if opened is None:
            return None
        held: list[Segment] = []
        try:
            with Arriving(self.store, self._reader.pool, loading.patience) as arriving:
                for key, entry in opened.items():
                    self._reader.reserve(len(key.tokens))
                    arriving.add(key, entry)
                arriving.begin()
                held = _in_place(keys, {**found, **arriving.segments}, opening.end)
                with self._reader.runner.awaiting(arriving.wait):
                    together = repair(opening, held, question)
                held = together[1:]
                arriving.keep()
            return together
        except BaseException as error:
            Begun(held, 0).release()
            if not isinstance(error, NotThereError):
                raise
            if error.late:
                loading.give_up()
            return None

    def _obtain(self, opening: tuple[int, ...], loading: Loading, found: dict[Key, Segment], tenant: str) -> int:
        """Have passages in pages: loaded, or read now, whichever is sooner. Returns how many tokens were read."""
        read: list[Key] = []

        def read_some(keys: list[Key]) -> list[Key]:
            if read:
                self._reader.meanwhile()
            batch = batches(keys, self._reader.step_tokens)[0]
            found.update(self._reader.read(opening, batch, tenant))
            read.extend(batch)
            return batch

        loading.run(partial(self._reader.place, found), read_some)
        return sum(len(key.tokens) for key in read)


def _in_place(keys: Sequence[Key], found: Mapping[Key, Segment], place: int) -> list[Segment]:
    """The passages of a prompt one behind the other, the first of them at `place`, each held once more."""
    held: list[Segment] = []
    for key in keys:
        segment = found[key].share()
        segment.shift = place - segment.start
        held.append(segment)
        place += len(key.tokens)
    return held
