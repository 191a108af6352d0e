"""Which entries a full KV store lets go of: what is saved of the seconds of computing, by the policy of eviction.

Questions ask for chunks by Zipf's law; what a question does not find is computed and kept. `drift`: every 50 questions
a fifth of the chunks change places in the law, as interests do. Nothing is timed: the seconds are those of a model of
prefill, linear and quadratic in the tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

import numpy as np

from harness import Options, Result, at_least, run
from longreach.kv.store.ranking import Ranking, Worth

CHUNKS, QUESTIONS, PASSAGES, DRIFT_EVERY = 200, 500, 8, 50
BYTES_PER_TOKEN = 30 * 3 * 2 * 64 * 4


def asked(chance: np.random.Generator, exponent: float, drift: bool) -> Iterator[int]:
    """The chunks of all questions, one after the other."""
    shares = 1 / np.arange(1, CHUNKS + 1) ** exponent
    shares /= shares.sum()
    order = chance.permutation(CHUNKS)
    for question in range(QUESTIONS):
        if drift and question and question % DRIFT_EVERY == 0:
            places = chance.choice(CHUNKS, CHUNKS // 5, replace=False)
            order[places] = order[chance.permutation(places)]
        yield from order[chance.choice(CHUNKS, PASSAGES, replace=False, p=shares)].tolist()


def saved(policy: str, chunks: list[int], sizes: list[int], seconds: list[float], limit: int) -> float:
    """Share of the seconds of computing that a tier of `limit` bytes saves."""
    ranking: Ranking[int] = Ranking(limit, CHUNKS if policy == "store" else 0)
    computed = clock = 0.0
    for chunk in chunks:
        clock += 1
        if chunk in ranking:
            if policy == "lru":
                ranking.add(chunk, Worth(sizes[chunk], 0.0, age=clock))
            else:
                ranking.touch(chunk)
            continue
        computed += seconds[chunk]
        if ranking.room(sizes[chunk], ()) is None:
            continue
        known = 0.0 if policy == "lru" else seconds[chunk]
        ranking.add(chunk, Worth(sizes[chunk], known, age=clock if policy == "lru" else ranking.age))
    return 1 - computed / sum(seconds[chunk] for chunk in chunks)


def measure(options: Options) -> Result:
    rows = []
    gains = []
    for exponent in (0.7, 1.0, 1.3):
        for drift in (False, True):
            for share in (0.1, 0.25, 0.5):
                shares: dict[str, list[float]] = {"lru": [], "gdsf": [], "store": []}
                for seed in range(3 if options.quick else 20):
                    chance = np.random.default_rng(seed)
                    tokens = chance.integers(60, 260, CHUNKS)
                    sizes = [int(n) * BYTES_PER_TOKEN for n in tokens]
                    seconds = [n * 1e-3 + n * n * 2e-6 for n in tokens.tolist()]
                    chunks = list(asked(chance, exponent, drift))
                    for policy, found in shares.items():
                        found.append(saved(policy, chunks, sizes, seconds, int(sum(sizes) * share)))
                means = {policy: round(mean(found), 3) for policy, found in shares.items()}
                rows.append({"zipf": exponent, "drift": drift, "holds": share, **means})
                gains.append((means["store"] - means["lru"], means["store"] - means["gdsf"]))
    return Result(
        rows,
        [
            at_least("least gain over LRU", round(min(lru for lru, _ in gains), 3), 0.0),
            at_least("mean gain over LRU", round(mean(lru for lru, _ in gains), 3), 0.02),
            at_least("mean gain over GDSF", round(mean(gdsf for _, gdsf in gains), 3), 0.0),
        ],
        [f"{QUESTIONS} questions of {PASSAGES} passages over {CHUNKS} chunks; `holds`: share of all chunks' bytes."],
    )


if __name__ == "__main__":
    run("store", measure, about="What eviction saves of the seconds of computing.")
