"""Chunks for the tests of the store: KV that follows from the tokens, so that any process can tell whether it is right.

As a program, `chunks.py FOLDER LIMIT FIRST LAST SEED SIZE ROUNDS`: puts and gets chunks at random, tells of each put on
standard output, and ends with an error as soon as something that it got is wrong.
"""

from __future__ import annotations

import random
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longreach.kv.codec.opened import Opened
from longreach.kv.store import Entry, Key, KVStore

LAYERS, HEADS, DIM = 2, 2, 4
FINGERPRINT = "a model"


@dataclass(frozen=True)
class Plain:
    """Float32 numbers as they are, behind their shape."""

    spec: str = "plain"

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        return struct.pack("<4I", *keys.shape) + keys.numpy().tobytes() + values.numpy().tobytes()

    def open(self, data: bytes) -> Opened:
        shape = struct.unpack_from("<4I", data)
        numbers = np.frombuffer(data, np.float32, offset=16).reshape(2, *shape).copy()
        return Opened.of(torch.from_numpy(numbers[0]), torch.from_numpy(numbers[1]))


@dataclass(frozen=True)
class Halves(Plain):
    """Whole numbers: what is read is not what was written."""

    spec: str = "halves"

    def encode(self, keys: torch.Tensor, values: torch.Tensor, start: int = 0) -> bytes:
        return super().encode(keys.round(), values.round())


def tokens_of(number: int, size: int = 0) -> list[int]:
    """The tokens of chunk `number`: 1 to 7 of them, or `size`."""
    return [number, *range(size - 1 if size else number % 7)]


def entry_of(number: int, size: int = 0) -> Entry:
    """The KV of chunk `number`; of every third one it was noted how much it looks outward."""
    n = len(tokens_of(number, size))
    numbers = np.random.default_rng(number).random((2, LAYERS, HEADS, n, DIM), np.float32)
    outward = None if number % 3 else torch.from_numpy(numbers[0, 0, 0, :, 0].copy())
    return Entry(torch.from_numpy(numbers[0]), torch.from_numpy(numbers[1]), number % 5, float(n), outward)


def same(found: Entry, expected: Entry) -> bool:
    return (
        torch.equal(found.keys, expected.keys)
        and torch.equal(found.values, expected.values)
        and (found.first, found.seconds) == (expected.first, expected.seconds)
        and (found.outward is None) == (expected.outward is None)
        and (expected.outward is None or torch.equal(found.outward, expected.outward))
    )


def open_store(folder: Path, *, host: int = 1 << 20, disk: int = 1 << 20, **other: object) -> KVStore:
    options: dict[str, object] = {"fingerprint": FINGERPRINT, "codec": Plain(), **other}
    return KVStore.open(folder, host_bytes=host, disk_bytes=disk, **options)  # type: ignore[arg-type]


def key_of(store: KVStore, number: int, size: int = 0) -> Key:
    return store.key(tokens_of(number, size))


def main(folder: str, limit: str, first: str, last: str, seed: str, size: str, rounds: str) -> None:
    store = open_store(Path(folder), host=0, disk=int(limit))
    chance = random.Random(int(seed))
    hits = 0
    for _ in range(int(rounds)):
        number = chance.randrange(int(first), int(last))
        key = key_of(store, number, int(size))
        found = store.get(key)
        if found is None:
            print("put", number, flush=True)
            store.put(key, entry_of(number, int(size)))
        elif not same(found, entry_of(number, int(size))):
            raise SystemExit(f"chunk {number} is wrong")
        else:
            hits += 1
    store.close()
    print("done", hits, store.stats().disk.damaged, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
