"""One token of each sequence attends to pages where they lie, on a processor.

PyTorch's attention is made for many queries: for one it reads the cache at a quarter of the memory's speed. Here the
streams of all sequences and KV heads are cut into parts of one size, threads take part after part, and whoever finishes
the last one puts them together (Dao et al. 2023, "Flash-Decoding for long-context inference"). New keys and values are
written on the way.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence as Many
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, cfunc, njit, types

from longreach.attention.merge import Part
from longreach.attention.numba_tools import (
    FAST,
    OPTIONS,
    count,
    exp,
    own_threads,
    pointer,
    prefetch,
    read,
    write,
)
from longreach.kv import int4, int8

# What a kernel is told, in int64. Memory is given by its address. From `TABLE` on there are the runs.
TAKEN, DONE, HEADS, RUNS, SPAN, SCALE, QUERY, KEY, VALUE, OUTPUT, LSE, SCRATCH = range(12)
# Of the pool: where its keys begin, and where the scales of keys and of values do, if they are of few bits.
POOL, KEY_SCALES, VALUE_SCALES, TABLE = range(12, 16)
# A line of the table of runs, which is in the order of tokens: a run of pages, `LENGTH` entries of which are seen by
# `TOKEN`, of the KV heads from `HEAD` on. The new entry is written behind them but one where `WRITE` is 1.
TOKEN, HEAD, COVERED, KEYS, VALUES, KEYS_APART, VALUES_APART, LENGTH, TURNED, ALIVE, WRITE = range(11)
Line = tuple[int, ...]

BLOCK = 64
"""Entries whose weights are reckoned at a time."""
AHEAD = 16
"""Entries that memory is asked for in advance: on the processors tried it does not see by itself what comes."""
LEAST = 128
"""Entries that are a part at least."""
LOW = np.float32(-1e30)
"""Below all scores."""
_LIKE = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0), int8.CODES: np.int8(0), int4.CODES: np.uint8(0)}
"""What stands for a number that is stored, by how it is kept."""


def decode(
    runs: Many[Line],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    stored: tuple[torch.Tensor, ...],
) -> Part:
    """Output `[tokens, heads, value_dim]` and log-sum-exp `[tokens, heads]` of `query [tokens, heads, dim]`; `key` and
    `value [tokens, kv_heads, ..]` are written to where `runs` say, in the pool that has `stored` them. All but that is
    float32 and contiguous."""
    (tokens, heads, dim), (_, kv_heads, value_dim) = query.shape, value.shape
    group, threads, run = heads // kv_heads, torch.get_num_threads(), own_threads()
    assert run is not None, "no threads for the kernel: see can_decode"
    entries = sum(line[LENGTH] * line[COVERED] for line in runs)
    span = max(LEAST, -(-entries // (2 * threads)))
    slots = tokens * kv_heads + entries // span
    output, lse = query.new_empty(tokens, heads, value_dim), query.new_empty(tokens, heads)
    scratch = query.new_empty(slots * _slot_size.py_func(group, dim, value_dim))
    told = [0, 0, kv_heads, len(runs), span, _bits(scale)]
    told += [x.data_ptr() for x in (query, key, value, output, lse, scratch, stored[0])]
    told += [x.data_ptr() for x in stored[2:]] or [0, 0]
    for line in runs:
        told += line
    numbers = np.array(told, np.int64)
    kernel = _compiled(group, dim, value_dim, stored[0].dtype)
    run(kernel.address, numbers.ctypes.data, threads)
    return output, lse


def can_decode(dtype: torch.dtype) -> bool:
    """Whether the kernel runs here, for keys and values in `dtype`."""
    return dtype in _LIKE and own_threads() is not None


@cache
def _bits(number: float) -> int:
    return int(struct.unpack("q", struct.pack("d", number))[0])


@njit(**OPTIONS)
def _line(size: Any, like: Any) -> Any:
    """The bytes in which `size` numbers are stored."""
    if isinstance(like, np.uint8):
        return size // 2
    return size * (np.int64(4) if isinstance(like, np.float32) else np.int64(2 if isinstance(like, np.uint16) else 1))


@njit(**OPTIONS)
def _scale(scales: Any, entry: Any, like: Any) -> Any:
    """What the stored numbers of an entry are multiplied by, which is 1 but for whole ones."""
    return read(scales, entry, np.uint16(0)) if isinstance(like, (np.int8, np.uint8)) else np.float32(1)


@njit(**OPTIONS)
def _spread(numbers: Any, size: Any) -> None:
    """See `kv.hadamard`, for the first `size` numbers, where they lie: sums and differences, twice as far apart each
    time."""
    block = size & -size
    apart = 1
    while apart < block:
        for begin in range(0, size, 2 * apart):
            for at in range(begin, begin + apart):
                one, other = numbers[at], numbers[at + apart]
                numbers[at], numbers[at + apart] = one + other, one - other
        apart *= 2
    share = np.float32(1 / math.sqrt(block))
    for at in range(size):
        numbers[at] *= share


@njit(**OPTIONS)
def _store(new: Any, to: Any, scale_to: Any, size: Any, like: Any, room: Any) -> None:
    """Put `size` float32 at one address to another, and what they are multiplied by to a third: see `kv.int8` and
    `kv.int4`. There is `room` for them."""
    if isinstance(like, np.uint8):
        for channel in range(size):
            room[channel] = read(new, channel, np.float32(0))
        _spread(room, size)
        least, most, lost = np.float32(0), np.float32(0), np.float32(0)
        for channel in range(size):
            least, most = min(least, room[channel]), max(most, room[channel])
            lost += room[channel] * np.float32(0)
        scale = (most if most >= -least else least) * np.float32(1 / int4.LOWEST)
        if abs(scale) < np.float32(int8.LEAST):
            scale = np.float32(int8.LEAST)
        write(scale_to, 0, scale + lost, np.uint16(0))
        share = np.float32(1) / read(scale_to, 0, np.uint16(0))
        for channel in range(size // 2):
            first, second = _code(room[channel] * share), _code(room[channel + size // 2] * share)
            write(to, channel, np.float32(16) * second + (first + np.float32(8)), np.int8(0))
        return
    share = np.float32(1)
    if isinstance(like, np.int8):
        top, lost = np.float32(0), np.float32(0)
        for channel in range(size):
            number = read(new, channel, np.float32(0))
            top = max(top, abs(number))
            lost += number * np.float32(0)  # what is no number shall not be one because it was compared
        write(scale_to, 0, max(top * np.float32(1 / int8.MOST), np.float32(int8.LEAST)) + lost, np.uint16(0))
        share = np.float32(1) / read(scale_to, 0, np.uint16(0))
    for channel in range(size):
        write(to, channel, share * read(new, channel, np.float32(0)), like)


@njit(**OPTIONS)
def _code(number: Any) -> Any:
    """The nearest code of 4 bits."""
    return min(max(np.rint(number), np.float32(int4.LOWEST)), np.float32(int4.HIGHEST))


@njit(**OPTIONS)
def _mixed(query: Any, size: Any) -> Any:
    """Make a spread query one for bytes of `kv.int4` and their lower bits, which need not be taken apart further then;
    what is to be added to each product with them."""
    half, first = size // 2, np.float32(0)
    for channel in range(half):
        first += query[channel]
        query[channel + half] *= np.float32(1 / 16)
        query[channel] -= query[channel + half]
    return np.float32(-8) * first


@njit(**OPTIONS)
def _parted(output: Any, weights: Any, size: Any) -> None:
    """Make sums of bytes and of their lower bits, as often as `weights` says in all, sums of the codes in them."""
    half = size // 2
    for channel in range(half):
        output[channel + half] = np.float32(1 / 16) * (output[channel + half] - output[channel])
        output[channel] -= np.float32(8) * weights


@njit(**OPTIONS)
def _product(query: Any, key: Any, size: Any, like: Any) -> Any:
    """Of a query and the key at an address, `size` numbers each."""
    score = np.float32(0)
    if isinstance(like, np.uint8):
        for channel in range(size // 2):
            score += query[channel] * read(key, channel, like)
            score += query[channel + size // 2] * read(key, channel, np.int8(0))
        return score
    for channel in range(size):
        score += query[channel] * read(key, channel, like)
    return score


@njit(fastmath=True, forceinline=True, no_cpython_wrapper=True)
def _greatest(scores: Any, size: Any) -> Any:
    """Of the first `size`. Of what is not a number nothing is said: only then several are compared at a time."""
    top = scores[0]
    for at in range(size):
        top = max(top, scores[at])
    return top


@njit(**OPTIONS)
def _attend(sizes: Any, keys: Any, values: Any, scales: Any, alive: Any, entries: Any, slot: Any) -> None:
    """Add `entries` keys and values at addresses, with their `scales` at two others, to the output of `slot`, which is
    not divided yet, and to its sums: the greatest score, the sum of weights, and that of weights times scales; between
    these stands what is added to each product."""
    group, dim, value_dim, like = sizes
    query, scores, sums, output = slot
    key_scales, value_scales = scales
    line, value_line = _line(dim, like), _line(value_dim, like)
    half = value_dim // 2
    for begin in range(0, entries, BLOCK):
        size = min(BLOCK, entries - begin)
        for at in range(size):
            for byte in range(0, line, 64):
                prefetch(keys + (begin + at + AHEAD) * line + byte)
            for byte in range(0, value_line, 64):
                prefetch(values + (begin + at + AHEAD) * value_line + byte)
            key = keys + (begin + at) * line
            for row in range(group):
                score = _product(query[row], key, dim, like)
                if isinstance(like, np.uint8):
                    score += sums[2, row]
                scores[row, at] = score * _scale(key_scales, begin + at, like)
        if alive:
            seen = carray(pointer(alive + begin), (size,), np.uint8)
            for at in range(size):
                if not seen[at]:
                    for row in range(group):
                        scores[row, at] = LOW
        for row in range(group):
            before = sums[0, row]
            top = max(before, _greatest(scores[row], size))
            if top > before:
                share = exp(before - top)
                sums[0, row] = top
                sums[1, row] *= share
                sums[3, row] *= share
                for channel in range(value_dim):
                    output[row, channel] *= share
            if top <= LOW:
                continue  # nothing was seen yet
            total = np.float32(0)
            for at in range(size):
                weight = exp(scores[row, at] - top)
                scores[row, at] = weight * _scale(value_scales, begin + at, like)
                total += weight
            sums[1, row] += total
            if isinstance(like, np.uint8):
                for at in range(size):
                    sums[3, row] += scores[row, at]
            fours = size - size % 4
            for at in range(0, fours, 4):
                a, b, c, d = scores[row, at], scores[row, at + 1], scores[row, at + 2], scores[row, at + 3]
                one = values + (begin + at) * value_line
                two, three, four = one + value_line, one + 2 * value_line, one + 3 * value_line
                if isinstance(like, np.uint8):
                    for channel in range(half):
                        output[row, channel] += (
                            a * read(one, channel, like)
                            + b * read(two, channel, like)
                            + c * read(three, channel, like)
                            + d * read(four, channel, like)
                        )
                    for channel in range(half):
                        output[row, channel + half] += (
                            a * read(one, channel, np.int8(0))
                            + b * read(two, channel, np.int8(0))
                            + c * read(three, channel, np.int8(0))
                            + d * read(four, channel, np.int8(0))
                        )
                    continue
                for channel in range(value_dim):
                    output[row, channel] += (
                        a * read(one, channel, like)
                        + b * read(two, channel, like)
                        + c * read(three, channel, like)
                        + d * read(four, channel, like)
                    )
            for at in range(fours, size):
                a, one = scores[row, at], values + (begin + at) * value_line
                if isinstance(like, np.uint8):
                    for channel in range(half):
                        output[row, channel] += a * read(one, channel, like)
                        output[row, channel + half] += a * read(one, channel, np.int8(0))
                    continue
                for channel in range(value_dim):
                    output[row, channel] += a * read(one, channel, like)


@njit(**OPTIONS)
def _slot_size(group: Any, dim: Any, value_dim: Any) -> Any:
    """How many numbers a part works with."""
    return group * (dim + BLOCK + 4 + value_dim) + max(dim, value_dim)


@njit(**OPTIONS)
def _slot(sizes: Any, told: Any, number: Any) -> Any:
    """What a part works with: query `[group, dim]`, scores `[group, BLOCK]`, sums `[4, group]`, output `[group,
    value_dim]`; and room for an entry that is being written."""
    group, dim, value_dim, _ = sizes
    query = told[SCRATCH] + 4 * number * _slot_size(group, dim, value_dim)
    scores = query + 4 * group * dim
    sums = scores + 4 * group * BLOCK
    return (
        carray(pointer(query), (group, dim), np.float32),
        carray(pointer(scores), (group, BLOCK), np.float32),
        carray(pointer(sums), (4, group), np.float32),
        carray(pointer(sums + 16 * group), (group, value_dim), np.float32),
        carray(pointer(sums + 4 * group * (4 + value_dim)), (max(dim, value_dim),), np.float32),
    )


@njit(**OPTIONS)
def _entries(told: Any, table: Any, first: Any, head: Any) -> Any:
    """How many entries a stream has whose token's runs begin with `first`, and the first run behind those."""
    entries, at = 0, first
    while at < told[RUNS] and table[at, TOKEN] == table[first, TOKEN]:
        if table[at, HEAD] <= head < table[at, HEAD] + table[at, COVERED]:
            entries += table[at, LENGTH]
        at += 1
    return entries, at


@njit(**OPTIONS)
def _part(
    sizes: Any, told: Any, table: Any, first: Any, last: Any, head: Any, begin: Any, end: Any, number: Any
) -> None:
    """Attend to entries `begin .. end - 1` of a stream, which are in the runs `first .. last - 1`, in slot `number`."""
    group, dim, value_dim, like = sizes
    query, scores, sums, output, room = _slot(sizes, told, number)
    scale = np.float32(carray(pointer(told.ctypes.data + SCALE * 8), 1, np.float64)[0])
    sums[0], sums[1], sums[3], output[:] = LOW, np.float32(0), np.float32(0), np.float32(0)
    known = np.int64(0)
    for at in range(first, last):
        own = head - table[at, HEAD]
        if not 0 <= own < table[at, COVERED]:
            continue
        length = table[at, LENGTH]
        low, high = max(begin, 0), min(end, length)
        begin, end = begin - length, end - length
        if low >= high:
            continue
        keys = table[at, KEYS] + own * table[at, KEYS_APART]
        values = table[at, VALUES] + own * table[at, VALUES_APART]
        scaled = 2 * ((keys - told[POOL]) // _line(dim, like))  # as many bytes from where scales begin
        key_scales, value_scales = told[KEY_SCALES] + scaled, told[VALUE_SCALES] + scaled
        if table[at, WRITE] and high == length:
            new, last = 4 * (table[at, TOKEN] * told[HEADS] + head), length - 1
            to = keys + last * _line(dim, like)
            _store(told[KEY] + new * dim, to, key_scales + 2 * last, dim, like, room)
            to = values + last * _line(value_dim, like)
            _store(told[VALUE] + new * value_dim, to, value_scales + 2 * last, value_dim, like, room)
        if table[at, TURNED] != known:
            known = table[at, TURNED]
            for row in range(group):
                for channel in range(dim):
                    query[row, channel] = scale * read(known + 4 * (head * group + row) * dim, channel, np.float32(0))
                if isinstance(like, np.uint8):
                    _spread(query[row], dim)
                    sums[2, row] = _mixed(query[row], dim)
        alive = table[at, ALIVE]
        keys, values = keys + low * _line(dim, like), values + low * _line(value_dim, like)
        scales = key_scales + 2 * low, value_scales + 2 * low
        _attend(sizes, keys, values, scales, alive + low if alive else alive, high - low, (query, scores, sums, output))
    if isinstance(like, np.uint8):
        for row in range(group):
            _parted(output[row], sums[3, row], value_dim)


@njit(**OPTIONS)
def _merge(sizes: Any, told: Any, table: Any) -> None:
    """Put the parts of every stream together."""
    group, _, value_dim, like = sizes
    number, first = 0, 0
    while first < told[RUNS]:
        token, behind = table[first, TOKEN], first
        for head in range(told[HEADS]):
            entries, behind = _entries(told, table, first, head)
            parts = -(-entries // told[SPAN])
            to = (token * told[HEADS] + head) * group
            result = carray(pointer(told[OUTPUT] + 4 * to * value_dim), (group, value_dim), np.float32)
            lse = carray(pointer(told[LSE] + 4 * to), (group,), np.float32)
            for row in range(group):
                top, total = LOW, np.float32(0)
                for at in range(number, number + parts):
                    top = max(top, _slot(sizes, told, at)[2][0, row])
                for channel in range(value_dim):
                    result[row, channel] = np.float32(0)
                for at in range(number, number + parts):
                    _, _, sums, output, _ = _slot(sizes, told, at)
                    share = exp(sums[0, row] - top)
                    total += share * sums[1, row]
                    for channel in range(value_dim):
                        result[row, channel] += share * output[row, channel]
                if total == 0:
                    lse[row] = -np.inf
                    continue
                lse[row] = top + np.float32(math.log(total))
                for channel in range(value_dim):
                    result[row, channel] /= total
                if isinstance(like, np.uint8):
                    _spread(result[row], value_dim)
            number += parts
        first = behind


@njit(**OPTIONS)
def _walk(sizes: Any, told: Any, table: Any, wanted: Any) -> Any:
    """Reckon part `wanted` of all streams' parts, if there is one. Returns how many there are."""
    number, first = 0, 0
    while first < told[RUNS]:
        behind = first
        for head in range(told[HEADS]):
            entries, behind = _entries(told, table, first, head)
            parts, at = -(-entries // told[SPAN]), wanted - number
            if 0 <= at < parts:
                begin, end = entries * at // parts, entries * (at + 1) // parts
                _part(sizes, told, table, first, behind, head, begin, end, wanted)
            number += parts
        first = behind
    return number


@njit(**OPTIONS)
def _work(sizes: Any, told: Any) -> None:
    """Take part after part; put them together if the last one to be done was among them."""
    table = carray(pointer(told.ctypes.data + TABLE * 8), (told[RUNS], WRITE + 1), np.int64)
    counters = told.ctypes.data
    while True:
        mine = count(counters + TAKEN * 8)
        parts = _walk(sizes, told, table, mine)
        if mine >= parts:
            return
        if count(counters + DONE * 8) + 1 == parts:
            _merge(sizes, told, table)


@cache
def _compiled(group: int, dim: int, value_dim: int, kept: torch.dtype) -> Any:
    """The C function of a kernel. Its sizes are constants in it; compiled code is kept on disk."""
    sizes = group, dim, value_dim, _LIKE[kept]

    @cfunc(types.void(types.voidptr), cache=True, fastmath=FAST)
    def kernel(told: Any) -> None:
        _work(sizes, carray(told, TABLE, np.int64))

    return kernel
