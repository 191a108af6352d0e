"""Prefill: any number of new tokens of every sequence attend to its pages. Importing this imports Triton.

A program takes a tile of tokens with all query heads of one KV head, so that what it reads serves the whole group, and
goes over the stream's pages with an online softmax (Dao 2023, FlashAttention-2, arXiv 2307.08691). Between which
positions the entries of each page lie is found first (`triton_extents.py`): pages that no row sees are passed over, and
only those that some rows see are masked entry by entry, whatever the order of the pages.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from longreach.attention.tables import Pages, References, Turns, check
from longreach.attention.triton_decode import processors
from longreach.attention.triton_extents import extents
from longreach.attention.triton_parts import (
    LOG2E,
    LOWEST,
    NOTHING,
    STRIDES,
    UNSEEN,
    Parts,
    capped,
    halves,
    hidden,
    spread,
    turned,
)
from longreach.attention.tuning import PrefillTuning, prefill_tuning, splits
from longreach.kv import hadamard


@triton.jit
def _lines(first, second, half, STEP: tl.constexpr):
    """Where the pages of a tile's entries begin."""
    return tl.where(half, second.to(tl.int64) * STEP, first.to(tl.int64) * STEP)


@triton.jit
def _tile(
    q,
    q_upper,
    top,
    total,
    acc,
    acc_upper,
    keys,
    values,
    key_scales,
    value_scales,
    stored,
    alive,
    first,
    second,
    at,
    end,
    limit,
    scale,
    window,
    softcap,
    MASKED: tl.constexpr,
    SCALED: tl.constexpr,
    PACKED: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One step of the online softmax: the page `first`, which is reference `at` of the stream, and `second`, the next,
    where it comes before `end` and two pages make a tile. `upper` are second halves of channels, of 4 bits alone."""
    WIDTH: tl.constexpr = DIM // 2 if PACKED else DIM
    VALUE_WIDTH: tl.constexpr = VALUE_DIM // 2 if PACKED else VALUE_DIM
    entry = tl.arange(0, ENTRIES)
    within = entry % PAGE
    channel = tl.arange(0, BLOCK_DIM)
    value_channel = tl.arange(0, BLOCK_VALUE)
    half = entry // PAGE != 0
    k = tl.load(
        keys + (_lines(first, second, half, PAGE * WIDTH)[None, :] + (within[None, :] * WIDTH + channel[:, None])),
        mask=(channel < WIDTH)[:, None] if BLOCK_DIM != WIDTH else None,
        other=0.0 if BLOCK_DIM != WIDTH else None,
    )
    v = tl.load(
        values
        + (
            _lines(first, second, half, PAGE * VALUE_WIDTH)[:, None]
            + (within[:, None] * VALUE_WIDTH + value_channel[None, :])
        ),
        mask=(value_channel < VALUE_WIDTH)[None, :] if BLOCK_VALUE != VALUE_WIDTH else None,
        other=0.0 if BLOCK_VALUE != VALUE_WIDTH else None,
    )
    if SCALED:  # whole numbers up to 128 are exact in any of the formats
        lines = _lines(first, second, half, PAGE) + within
        value_scale = tl.load(value_scales + lines).to(tl.float32)
        if PACKED:
            k, k_upper = halves(k)
            v, v_upper = halves(v)
            k_upper = k_upper.to(q.dtype)
            v_upper = v_upper.to(q.dtype)
            value_scale *= 1 / 16
        k = k.to(q.dtype)
        v = v.to(q.dtype)
    scores = tl.dot(q, k, input_precision=PRECISION)
    if PACKED:
        scores = tl.dot(q_upper, k_upper, scores, input_precision=PRECISION)
    if SCALED:
        scores *= (tl.load(key_scales + lines).to(tl.float32) * (1 / 16 if PACKED else 1))[None, :]
    scores = capped(scores, scale, softcap) if SOFTCAP else scores
    factor = 1.0 if SOFTCAP else scale * LOG2E
    if MASKED:
        bits = tl.where(half, tl.load(alive + tl.minimum(at + 1, end - 1)), tl.load(alive + at))
        where = hidden(tl.load(stored + _lines(first, second, half, PAGE) + within), bits, within)
        where = tl.where(half & (at + 1 == end), UNSEEN, where)
        seen = where[None, :] <= limit[:, None]
        if WINDOW:
            seen = seen & (where[None, :] > limit[:, None] - window)
        # Multiplied first: within one rounding of a product and a difference, LOWEST less itself is anything.
        scores = tl.where(seen, scores * factor, LOWEST)
        higher = tl.maximum(top, tl.max(scores, 1))
        weight = tl.exp2(scores - higher[:, None])
    else:
        higher = tl.maximum(top, tl.max(scores, 1) * factor)
        weight = tl.exp2(scores * factor - higher[:, None])
    fade = tl.exp2(top - higher)
    total = total * fade + tl.sum(weight, 1)
    if SCALED:
        weight *= value_scale[None, :]
    weight = weight.to(v.dtype)
    acc = tl.dot(weight, v, acc * fade[:, None], input_precision=PRECISION)
    if PACKED:
        acc_upper = tl.dot(weight, v_upper, acc_upper * fade[:, None], input_precision=PRECISION)
    return higher, total, acc, acc_upper


@triton.jit(do_not_specialize=[*STRIDES, "width", "streams", "sequences", "window", "parts", "many"])
def _prefill(
    query,
    position,
    starts,
    keys,
    values,
    key_scales,
    value_scales,
    stored,
    pages,
    slots,
    alive,
    counts,
    page_s,
    page_h,
    slot_s,
    slot_h,
    alive_s,
    alive_h,
    count_s,
    count_h,
    cosines,
    sines,
    shifts,
    signs,
    extents,
    out,
    lse,
    width,
    streams,
    sequences,
    scale,
    window,
    softcap,
    parts,
    many,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    SCALED: tl.constexpr,
    PACKED: tl.constexpr,
    SHARE: tl.constexpr,
    TURNED: tl.constexpr,
    PAIRS: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    ENTRIES: tl.constexpr,
    AHEAD: tl.constexpr,
    BLOCK_EVERY: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    part = tl.program_id(0) % parts
    # The last tiles see most: they begin first. Programs side by side read the same stream.
    tile = tl.num_programs(0) // parts - 1 - tl.program_id(0) // parts
    h = tl.program_id(1)
    # Tiles of sequence s begin at starts[s] // TOKENS + s: room enough, and known without asking the device.
    s = 0
    beyond = sequences
    while s + 1 < beyond:
        middle = (s + beyond) // 2
        if tl.load(starts + middle) // TOKENS + middle <= tile:
            s = middle
        else:
            beyond = middle
    begin = tl.load(starts + s)
    stop = tl.load(starts + s + 1)
    first_token = begin + (tile - begin // TOKENS - s) * TOKENS
    if first_token >= stop:
        return

    WIDTH: tl.constexpr = DIM // 2 if PACKED else DIM
    VALUE_WIDTH: tl.constexpr = VALUE_DIM // 2 if PACKED else VALUE_DIM
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK_DIM)
    every = tl.arange(0, BLOCK_EVERY)
    value_channel = tl.arange(0, BLOCK_VALUE)
    token = first_token + row // GROUP
    real = (row < TOKENS * GROUP) & (token < stop)
    head = token * (HEADS * GROUP) + h * GROUP + row % GROUP
    lines = query + head.to(tl.int64)[:, None] * DIM
    own = real[:, None] & (channel < WIDTH)[None, :]
    at = tl.load(position + token, mask=real, other=0)
    latest = tl.max(tl.where(real, at, -UNSEEN), 0)
    earliest = tl.min(tl.where(real, at, UNSEEN), 0)
    q = tl.load(lines + channel[None, :], mask=own, other=0.0)
    q_upper = q
    if PACKED:
        q_upper = tl.load(lines + WIDTH + channel[None, :], mask=own, other=0.0)
    if not SCALED:
        q = q.to(keys.dtype.element_ty)
    limit = at - tl.load(shifts + s * many)

    stream = s * HEADS + h
    count = tl.load(counts + s * count_s + h * count_h)
    at_ref = (count * part) // parts
    last = (count * (part + 1)) // parts
    pages += tl.cast(s, tl.int64) * page_s + h * page_h
    slots += tl.cast(s, tl.int64) * slot_s + h * slot_h
    alive += tl.cast(s, tl.int64) * alive_s + h * alive_h
    extents += stream.to(tl.int64) * width
    step = tl.cast(streams, tl.int64) * width
    ahead = tl.arange(0, AHEAD)
    top = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_VALUE], tl.float32)
    acc_upper = acc
    while at_ref < last:
        # The pages ahead that are alike: of one slot, and unseen (0), seen by all rows (1) or by some (2).
        ref = at_ref + ahead
        some = ref < last
        low = tl.load(extents + ref, mask=some, other=0)
        high = tl.load(extents + step + ref, mask=some, other=0)
        highest = tl.load(extents + 2 * step + ref, mask=some, other=0)
        slot = tl.load(slots + ref, mask=some, other=0)
        unseen = low > latest
        whole = highest <= earliest
        if WINDOW:
            unseen = unseen | (high <= earliest - window)
            whole = whole & (low > latest - window)
        kind = tl.where(unseen, 0, tl.where(whole, 1, 2))
        alike = tl.sum(tl.where(ahead == 0, kind, 0), 0)
        same = tl.sum(tl.where(ahead == 0, slot, 0), 0)
        # Among pages seen in part, some seen whole are masked too: to stop for each costs more.
        differs = tl.where(alike == 2, (kind == 0) | (ahead >= 4 * (ENTRIES // PAGE)), kind != alike)
        differs = differs | ((alike != 0) & (slot != same)) | (ref >= last)
        run = tl.min(tl.where(differs, ahead, AHEAD), 0)
        if TURNED:
            of = s * many + same
            limit = at - tl.load(shifts + of)
            whole = real[:, None] & (every < DIM)[None, :]
            partner = tl.where(every < 2 * PAIRS, (every + PAIRS) % (2 * PAIRS), every)
            plain = tl.load(lines + every[None, :], mask=whole, other=0.0).to(tl.float32)
            crossed = tl.load(lines + partner[None, :], mask=whole, other=0.0).to(tl.float32)
            crossed *= tl.where(every < PAIRS, 1.0, -1.0)[None, :]
            found = turned(plain, crossed, cosines + of * PAIRS, sines + of * PAIRS, every, PAIRS)
            if PACKED:
                q_upper = spread(found, signs, every, channel + WIDTH, DIM, SHARE, PRECISION).to(q.dtype)
                found = spread(found, signs, every, tl.where(channel < WIDTH, channel, DIM), DIM, SHARE, PRECISION)
            q = found.to(q.dtype)
        end = at_ref + tl.where(alike == 0, 0, run)
        free = at_ref + tl.where(alike == 1, run // (ENTRIES // PAGE) * (ENTRIES // PAGE), 0)
        # Which pages come next is read a tile ahead: nothing waits for it.
        first = tl.load(pages + at_ref)
        second = tl.load(pages + tl.minimum(at_ref + 1, last - 1))
        for i in range(at_ref, free, ENTRIES // PAGE):
            this, that = first, second
            first = tl.load(pages + tl.minimum(i + ENTRIES // PAGE, last - 1))
            second = tl.load(pages + tl.minimum(i + ENTRIES // PAGE + 1, last - 1))
            top, total, acc, acc_upper = _tile(
                q, q_upper, top, total, acc, acc_upper, keys, values, key_scales, value_scales, stored, alive, this,
                that, i, end, limit, scale, window, softcap, False, SCALED, PACKED, WINDOW, SOFTCAP, DIM, VALUE_DIM,
                PAGE, ENTRIES, BLOCK_DIM, BLOCK_VALUE, PRECISION,
            )  # fmt: skip
        first = tl.load(pages + tl.minimum(free, last - 1))
        second = tl.load(pages + tl.minimum(free + 1, last - 1))
        for i in range(free, end, ENTRIES // PAGE):
            this, that = first, second
            first = tl.load(pages + tl.minimum(i + ENTRIES // PAGE, last - 1))
            second = tl.load(pages + tl.minimum(i + ENTRIES // PAGE + 1, last - 1))
            top, total, acc, acc_upper = _tile(
                q, q_upper, top, total, acc, acc_upper, keys, values, key_scales, value_scales, stored, alive, this,
                that, i, end, limit, scale, window, softcap, True, SCALED, PACKED, WINDOW, SOFTCAP, DIM, VALUE_DIM,
                PAGE, ENTRIES, BLOCK_DIM, BLOCK_VALUE, PRECISION,
            )  # fmt: skip
        at_ref += run

    saw = top > NOTHING
    total = tl.where(saw, total, 1.0)
    result = tl.where(saw[:, None], acc / total[:, None], 0.0)
    to = head.to(tl.int64) * parts + part
    own = real[:, None] & (value_channel < VALUE_WIDTH)[None, :]
    lines = out + to[:, None] * VALUE_DIM + value_channel[None, :]
    tl.store(lines, result.to(out.dtype.element_ty), mask=own)
    if PACKED:
        result = tl.where(saw[:, None], acc_upper / total[:, None], 0.0)
        tl.store(lines + VALUE_WIDTH, result.to(out.dtype.element_ty), mask=own)
    tl.store(lse + to, tl.where(saw, top / LOG2E + tl.log(total), float("-inf")), mask=real)


def prefill(
    query: torch.Tensor,
    position: torch.Tensor,
    starts: torch.Tensor,
    pages: Pages,
    references: References,
    turns: Turns,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    parts: int | None = None,
    tuning: PrefillTuning | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of `query [T, Hq, D]` at `position [T]` (int32); the tokens of sequence `s` are `starts[s] ..
    starts[s + 1] - 1` (`starts [S + 1]`, int32), any number of them, at any positions in any order. Their keys and
    values were written before.

    What a query sees, `scale`, `window`, `softcap`, `parts`, the result and the errors are those of `decode`.
    """
    check(query, pages, references, turns)
    (sequences, heads), width = references.counts.shape, references.pages.shape[2]
    tokens, dim, value_dim = len(query), query.shape[2], pages.value_dim
    group, streams = query.shape[1] // heads, sequences * heads
    if tuning is None:
        line = dim * pages.multiplied(query).itemsize
        tuning = prefill_tuning(pages.size, line, -(-tokens * group // max(sequences, 1)))
    rows = max(tuning.rows, triton.next_power_of_2(group))
    entries = min(max(tuning.entries, pages.size), 2 * pages.size)
    tiles = tokens // (rows // group) + sequences
    if parts is None:
        parts = splits(tiles * heads, width, tuning.resident * processors(query.device))
    room = Parts(query, value_dim, parts)
    if not tokens or not sequences:
        return room.merged(spread=False)
    is_turned = turns.slots > 1
    if pages.packed and not is_turned:
        query = hadamard.spread(query)
    found = extents(pages, references, turns)
    _prefill[(tiles * parts, heads)](
        query,
        position,
        starts,
        pages.keys,
        pages.values,
        pages.key_scales,
        pages.value_scales,
        pages.positions,
        references.pages,
        references.slots,
        references.alive,
        references.counts,
        *references.strides(),
        turns.cosines,
        turns.sines,
        turns.shifts,
        pages.signs(query),
        found,
        room.part,
        room.part_lse,
        width,
        streams,
        sequences,
        scale,
        window or 0,
        softcap or 1.0,
        parts,
        turns.slots,
        HEADS=heads,
        GROUP=group,
        DIM=dim,
        VALUE_DIM=value_dim,
        PAGE=pages.size,
        SCALED=pages.scaled,
        PACKED=pages.packed,
        SHARE=hadamard.block_of(dim) ** -0.5,
        TURNED=is_turned,
        PAIRS=max(turns.cosines.shape[2], 1),
        WINDOW=window is not None,
        SOFTCAP=softcap is not None,
        PRECISION="ieee" if pages.multiplied(query) == torch.float32 else "tf32",
        ROWS=rows,
        TOKENS=rows // group,
        ENTRIES=entries,
        AHEAD=512,
        BLOCK_EVERY=max(16, triton.next_power_of_2(dim)),
        BLOCK_DIM=max(16, triton.next_power_of_2(pages.keys.shape[2])),
        BLOCK_VALUE=max(16, triton.next_power_of_2(pages.values.shape[2])),
        num_warps=tuning.warps,
        num_stages=tuning.stages,
    )
    return room.merged(pages.packed)
