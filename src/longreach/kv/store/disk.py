"""The tier on disk: a folder with a folder for each model and a file for each entry, shared by any number of engines.

Nothing is locked and nothing is kept in common but the files: what another engine removed is a miss, what it wrote is
found by its name, and its bytes are counted when the folder is looked through, which is done now and then.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Lock, RLock

from longreach.errors import InputError
from longreach.kv.store import files
from longreach.kv.store.format import (
    HEADER,
    SUFFIX,
    USAGE_AT,
    DamagedError,
    Encoded,
    ForeignError,
    Label,
    head,
    parse,
    usage,
    worth,
)
from longreach.kv.store.key import Key, encoded
from longreach.kv.store.ranking import Ranking, Worth
from longreach.kv.store.stats import Counts, TierStats

MODEL_FILE = "model.json"
_LOOK_EVERY = 32
"""Entries written between two looks through the folder."""
_TOUCHES = 1 << 16
"""Uses that are remembered between two writes."""


class DiskTier:
    """Entries of one model in one codec, in files; those of others in the same folder count against `limit` bytes and
    go when it is their turn. `home` is the folder of ours; `model` a name for people.

    Safe for several threads: who reads or touches waits for nobody who writes or looks through the folder.
    """

    def __init__(self, folder: Path, label: Label, limit: int, model: str = "") -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file: name a folder for the KV store")
        self.folder = folder
        self.label = label
        self.limit = limit
        self.counts = Counts()
        self.unwritten = 0
        self.model = model
        self.home = folder / home(label.fingerprint)
        self._ending = f".{_short(label.codec)}{SUFFIX}"
        self._ranking: Ranking[str] = Ranking(limit)
        self._changed: dict[str, int] = {}
        self._stale: set[str] = set()  # whose usage in the file is not what is known here
        self._writing: set[str] = set()
        self._misplaced: set[str] = set()  # found where an entry of ours should be
        self._until_look = 0
        self._warned = False
        self._touched: deque[str] = deque(maxlen=_TOUCHES)  # not yet known to the ranking
        self._lock = RLock()
        self._counting = Lock()

    def path(self, key: Key) -> Path:
        """Where the entry lies, if it is there."""
        return self.home / (key.digest + self._ending)

    def __contains__(self, key: Key) -> bool:
        return self._name(key) not in self._misplaced and files.present(self.path(key))

    def read(self, key: Key) -> Encoded | None:
        """An entry, found whole and to be the one asked for; counted. What is damaged is removed."""
        try:
            found = parse(files.read(self.path(key)), key, self.label)
        except DamagedError:
            self._remove(key)
            return None
        except (ForeignError, OSError) as error:
            if isinstance(error, ForeignError):
                self._misplaced.add(self._name(key))
            with self._counting:
                self.counts.misses += 1
                self.counts.damaged += not isinstance(error, ForeignError | FileNotFoundError)
            return None
        with self._counting:
            self.counts.hits += 1
        return found

    def discard(self, key: Key) -> None:
        """Remove an entry that was read and turned out to be damaged: it was no hit."""
        self._remove(key)
        with self._counting:
            self.counts.hits -= 1

    def _remove(self, key: Key) -> None:
        files.remove(self.path(key))
        with self._counting:
            self.counts.misses += 1
            self.counts.damaged += 1

    def hits(self, key: Key) -> int:
        """How often an entry was wanted; 1 where it is not known."""
        return self._ranking.hits(self._name(key))

    def touch(self, key: Key) -> None:
        """Note that an entry was wanted, if it is here. The file hears of it by `settle`."""
        self._touched.append(self._name(key))

    def settle(self) -> None:
        """Write to the files how often they were wanted, so that it is known after a restart."""
        with self._lock:
            self._apply_touches()
            told = [(name, self._ranking[name]) for name in self._stale if name in self._ranking]
            self._stale.clear()
        for name, known in told:
            files.overwrite(self.folder / name, USAGE_AT, usage(known.hits, known.age))

    def write(self, key: Key, entry: Encoded, hits: int, pinned: set[Key]) -> bool:
        """Write an entry, others making room for it. False, with one warning, where the disk does not take it; False
        where the limit does not."""
        name = self._name(key)
        if self._until_look == 0:
            self.settle()
        with self._lock:
            self._apply_touches()
            if self._until_look == 0 or not files.present(self.home):
                self._look()
            self._until_look -= 1
            start = head(key, entry, self.label, hits, self._ranking.age)
            size = len(start) + len(entry.payload)
            self._ranking.remove(name)
            gone = self._ranking.room(size, {self._name(held) for held in pinned})
            if gone is None:
                return False
            self._ranking.add(name, Worth(size, entry.seconds, hits, self._ranking.age))
            self._writing.add(name)
            self.counts.evicted += sum(self._own(other) for other in gone)
        for other in gone:
            files.remove(self.folder / other)
        try:
            self._introduce()
            files.write(self.path(key), start, entry.payload)
        except OSError as error:
            self._failed(key, error)
            return False
        finally:
            with self._lock:
                self._writing.discard(name)
                self._misplaced.discard(name)
                made_room = name not in self._ranking
        if made_room:  # for what another thread wrote meanwhile
            files.remove(self.path(key))
        return not made_room

    def clear(self) -> None:
        """Remove all entries of the model, in whatever codec."""
        for found in list(files.entries(self.folder)):
            if found.name.startswith(f"{self.home.name}/"):
                files.remove(self.folder / found.name)
        with self._lock:
            self._look()

    def stats(self) -> tuple[TierStats, int, int]:
        """The tier, and how many entries and bytes of others are in the folder."""
        with self._lock:
            self._apply_touches()
            self._look()
            own = [
                self._ranking[name].bytes for name in self._ranking if self._own(name) and name not in self._misplaced
            ]
            told = TierStats(
                self._ranking.limit,
                len(own),
                sum(own),
                self.counts.hits,
                self.counts.misses,
                self.counts.damaged,
                self.counts.evicted,
            )
            return told, len(self._ranking) - len(own), self._ranking.bytes - told.bytes

    def _apply_touches(self) -> None:
        while self._touched:
            name = self._touched.popleft()
            if name not in self._ranking:
                with suppress(OSError):
                    self._learn(name, (self.folder / name).stat().st_size)
            if name in self._ranking:
                self._ranking.touch(name)
                self._stale.add(name)

    def _look(self) -> None:
        """Learn what is in the folder by now."""
        self._until_look = _LOOK_EVERY
        found = {file.name: file for file in files.entries(self.folder)}
        for name in [name for name in self._ranking if name not in found and name not in self._writing]:
            self._ranking.remove(name)
        for name, file in found.items():
            known_here = name in self._stale or name in self._writing or self._changed.get(name) == file.changed
            if known_here and name in self._ranking:
                continue
            self._learn(name, file.bytes)
        self._changed = {name: file.changed for name, file in found.items()}
        self._ranking.catch_up()

    def _learn(self, name: str, size: int) -> None:
        """Count in an entry that this tier did not write, or wrote before it was opened."""
        known = worth(files.start(self.folder / name, HEADER), size)
        self._ranking.add(name, known)

    def _introduce(self) -> None:
        """Write the model's name beside its entries, once."""
        file = self.home / MODEL_FILE
        if self.model and not file.exists():
            files.write(file, json.dumps({"model": self.model, "fingerprint": self.label.fingerprint}).encode())

    def _failed(self, key: Key, error: OSError) -> None:
        with self._lock:
            self._ranking.remove(self._name(key))
            self.unwritten += 1
            warned, self._warned = self._warned, True
        if not warned:
            logging.getLogger(__name__).warning(
                "the KV store in %s cannot be written (%s): what is read is not kept on disk until it can",
                self.folder,
                error.strerror or error,
            )

    def _name(self, key: Key) -> str:
        return f"{self.home.name}/{key.digest}{self._ending}"

    def _own(self, name: str) -> bool:
        return name.startswith(f"{self.home.name}/") and name.endswith(self._ending)


def home(fingerprint: str) -> str:
    """The name of a model's folder."""
    return hashlib.blake2b(encoded(fingerprint), digest_size=8).hexdigest()


def _short(text: str) -> str:
    return hashlib.blake2b(encoded(text), digest_size=4).hexdigest()


def model_name(folder: Path) -> str:
    """The name beside a model's entries; "" where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))["model"])
    return ""
