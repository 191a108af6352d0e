"""A step on a processor: runs of neighbouring pages are read where they lie, as strided tensors; nothing is copied.

Each run is attended to by PyTorch's flash attention, and the parts are merged by their log-sum-exp. What the tokens of
one prompt see of each other is taken from the step itself and not read back from the pages.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import torch

from longreach.attention.attend import Scores
from longreach.attention.gathered import PLACES, Block, Gathered
from longreach.attention.merge import Part, merge
from longreach.attention.rotation import Rotation
from longreach.attention.seen import Seen
from longreach.attention.shared import Shared, SharedBeginnings, shared_beginnings
from longreach.attention.step import Row, Step
from longreach.kv.coding import CODINGS, parts_of
from longreach.kv.pool import PagePool
from longreach.kv.segment import Run, Segment

FEW = 32
"""Query rows up to which the keys of fewer bits are multiplied as they are; more are quicker with float32 ones."""
SPLIT = 1024
"""Entries from which the attention of a few rows is cut into parts, so that all threads have work."""
CACHE = 1 << 20
"""Bytes of a head's keys and values that are read again without harm."""
BLOCK = 2048
"""Entries that are made float32 at a time."""


class StridedStep(Step):
    """Writes to runs, attends to runs; what sequences share is attended to once, by all of them."""

    def __init__(self, pool: PagePool, rotations: Many[Rotation], rows: Many[Row]) -> None:
        super().__init__(pool, rotations, rows)
        self._shared: SharedBeginnings | None = shared_beginnings(rows)
        self._rest: dict[int, tuple[int, int]] = {}
        self._together: dict[tuple[int, bool], Gathered | None] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        if self._shared is None or not self._shared.within(scores.window):
            self._rest = {}
            return self.each(layer, query, key, value, scores)
        self._rest = self._shared.rest
        output, lse = self.each(layer, query, key, value, scores)
        for shared in self._shared.parts:
            some = shared.tokens
            part = self._shared_part(layer, shared, query[some], scores, key.shape[1])
            if len(some) == len(query):
                output, lse = merge([(output, lse), part])
            else:
                output[some], lse[some] = merge([(output[some], lse[some]), part])
        return output, lse

    def each(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """`attend`, every sequence for itself, to what it does not share."""
        return super().attend(layer, query, key, value, scores)

    def _shared_part(self, layer: int, shared: Shared, query: torch.Tensor, scores: Scores, heads: int) -> Part:
        """Attention of `query [tokens, heads, dim]` to what their sequences share."""
        turned = self.rotations[layer].turn(query, -shared.segment.shift)
        parts: list[list[Part]] = [[] for _ in range(heads)]
        for run in shared.segment.runs(layer):
            low = max(0, shared.first - run.first)
            length = min(shared.first + shared.length - run.first, run.room)
            if low < length:
                parts[run.head].append(_of_run(turned, run, low, length, scores, None, heads))
        if all(part[0].shape[1] == query.shape[1] for part in parts[0]) and not any(parts[1:]):
            return merge(parts[0])
        return _by_head(parts, None, query, heads)

    def row(
        self, layer: int, row: Row, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> Part:
        fresh = _fresh(query, key, value, scores, row) if row.count > 1 else None
        return self._row(layer, row, query, fresh, scores)

    def write(self, layer: int, row: Row, key: torch.Tensor, value: torch.Tensor) -> None:
        runs = row.tail.runs(layer)
        last = runs[-1]
        parts = parts_of(key, value, self.pool.keys.dtype)
        if row.count == 1 and last.heads == row.sequence.heads and 0 <= row.entry - last.first < last.room:
            at = row.entry - last.first
            for stored, new in zip(last.stored, parts, strict=True):
                stored.select(1, at).copy_(new[0])
            runs = []
        for run in runs:
            begin, end = max(row.entry, run.first), min(row.entry + row.count, run.first + run.room)
            if begin < end:
                own, heads = slice(begin - row.entry, end - row.entry), slice(run.head, run.head + run.heads)
                for stored, new in zip(run.stored, parts, strict=True):
                    stored[:, begin - run.first : end - run.first].copy_(new[own, heads].transpose(0, 1))
        if layer == 0:
            write_positions(self.pool, row)

    def past(self, layer: int, query: torch.Tensor, row: Row, scores: Scores) -> Part:
        return self._row(layer, row, query, None, scores)

    def _row(self, layer: int, row: Row, query: torch.Tensor, fresh: Part | None, scores: Scores) -> Part:
        """Attention to all runs of the sequence, and what the tokens see of each other (`fresh`)."""
        heads = row.sequence.heads
        gathered = self._gathered(layer, row, query, fresh, scores)
        if gathered is not None:
            return gathered
        parts: list[list[Part]] = [[] for _ in range(heads)]  # by their first head
        together = True
        at, skipped = self._rest.get(row.first, (0, 0))
        for segment in row.sequence.segments[at:]:
            turned = self.rotations[layer].turn(query, -segment.shift) if segment.shift else query
            for run in segment.runs(layer):
                end = row.entry if fresh and segment is row.tail else int(segment.entries[layer, run.head])
                length = min(end - run.first, run.room)
                low = max(0, skipped - run.first)
                part = _past(self.pool, segment, run, low, length, turned, row, scores, heads) if length > low else None
                if part is not None:
                    parts[run.head].append(part)
                    together &= run.heads == heads
            skipped = 0
        if together:
            whole = [*parts[0], fresh] if fresh else parts[0]
            return merge(whole) if whole else _nothing(query)
        return _by_head(parts, fresh, query, heads)

    def _gathered(self, layer: int, row: Row, query: torch.Tensor, fresh: Part | None, scores: Scores) -> Part | None:
        """As `_row`, by what is gathered; None where it cannot be."""
        known = id(row.sequence), fresh is not None
        if known not in self._together:
            alone = self._rest.get(row.first, (0, 0)) == (0, 0)
            worth = alone and row.count > 1 and len(row.sequence.segments) >= PLACES
            self._together[known] = Gathered.of(row, before=fresh is not None) if worth else None
        gathered = self._together[known]
        if gathered is None:
            return None
        keys, values = gathered.bring(layer, self.rotations[layer])
        group = query.shape[1] // len(keys)
        blocks = gathered.blocks(scores.window, group)
        parts = [of_block(query[some.tokens], keys, values, some, scores) for some in blocks]
        if [some.tokens for some in blocks] == [slice(0, row.count)]:
            part = parts[0]
        else:
            part = _nothing(query)
            for some, own in zip(blocks, parts, strict=True):
                part[0][some.tokens], part[1][some.tokens] = own
        return merge([part, fresh]) if fresh else part


def of_block(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: Block, scores: Scores) -> Part:
    """Attention of the tokens of a block, `query [tokens, heads, dim]`, to those of `keys` and `values [kv_heads,
    entries, dim]` that they see."""
    (tokens, rows), heads = query.shape[:2], len(keys)
    own = query.float().view(tokens, heads, rows // heads, -1).transpose(0, 1).flatten(1, 2)
    output, lse = _products(own, keys[:, block.entries], values[:, block.entries], scores, block.seen)
    output = output.view(heads, tokens, rows // heads, -1).transpose(0, 1).reshape(tokens, rows, -1).to(query.dtype)
    return output, lse.view(heads, tokens, -1).transpose(0, 1).reshape(tokens, rows)


def write_positions(pool: PagePool, row: Row) -> None:
    """The positions of the new tokens, for all layers at once."""
    size, table, places = pool.page_size, row.tail.table, torch.from_numpy(row.places)
    at = 0
    while at < row.count:
        column, entry = divmod(row.entry + at, size)
        n = min(size - entry, row.count - at)
        pool.positions[pool.index(table[:, :, column].reshape(-1)), entry : entry + n] = places[at : at + n]
        at += n


def _past(
    pool: PagePool,
    segment: Segment,
    run: Run,
    low: int,
    length: int,
    query: torch.Tensor,
    row: Row,
    scores: Scores,
    heads: int,
) -> Part | None:
    """Attention of `query [tokens, heads, dim]` to the entries `low .. length - 1` of a run; None where they see
    none."""
    tokens, group = row.count, query.shape[1] // heads
    ordered = segment.whole
    begins = segment.start + segment.shift + run.first
    last = begins + length - 1 if ordered else segment.end - 1
    visible = last <= row.position  # all of it stands before the first query
    if ordered and begins > row.last:
        return None
    if scores.window is not None and ordered:
        low = max(low, row.position - scores.window + 1 - begins)
        if low >= length:
            return None
        visible &= row.last - scores.window < begins + low
    elif scores.window is not None:
        visible = False
    seen = None
    if not visible or segment.alive is not None:
        seen = Seen.where(_mask(pool, segment, run, low, length, row, scores), group)
    if tokens == 1 and seen is None and scores.softcap is None and run.heads == heads:
        part = _one(query, run, low, length - low, scores.scale)
        if part is not None:
            return part
    return _of_run(query, run, low, length, scores, seen, heads)


def _of_run(
    query: torch.Tensor, run: Run, low: int, length: int, scores: Scores, seen: Seen | None, heads: int
) -> Part:
    """Attention of `query [tokens, heads, dim]` to the entries `low .. length - 1` of a run, as far as they are
    `seen`."""
    tokens, group = len(query), query.shape[1] // heads
    if tokens == 1:
        own = query.reshape(heads, group, -1)
        output, lse = _rows(own[run.head : run.head + run.heads], run, low, length, scores, seen)
        return output.reshape(1, run.heads * group, -1), lse.reshape(1, -1)
    own = query[:, run.head * group : (run.head + run.heads) * group]
    rows = own.reshape(tokens, run.heads, group, -1).transpose(0, 1).reshape(run.heads, tokens * group, -1)
    output, lse = _rows(rows, run, low, length, scores, seen)
    output = output.reshape(run.heads, tokens, group, -1).transpose(0, 1).reshape(tokens, run.heads * group, -1)
    return output, lse.reshape(run.heads, tokens, group).transpose(0, 1).reshape(tokens, run.heads * group)


def _rows(query: torch.Tensor, run: Run, low: int, length: int, scores: Scores, seen: Seen | None) -> Part:
    """As `_products` for `query [run.heads, rows, dim]` and the entries `low .. length - 1` of a run. What is kept in
    fewer bits than queries have is made as wide as they are, part by part; 16 bits not for a few rows."""
    kept = run.keys.dtype
    if kept == query.dtype or (kept not in CODINGS and query.shape[1] <= FEW):
        return _products(query, *run.read(low, length), scores, seen)
    parts = []
    for at in range(low, length, BLOCK):
        end = min(at + BLOCK, length)
        keys, values = (x.to(query.dtype) for x in run.read(at, end))
        parts.append(_products(query, keys, values, scores, seen and Seen(seen.mask[:, at - low : end - low])))
    return merge(parts)


def _one(query: torch.Tensor, run: Run, low: int, length: int, scale: float) -> Part | None:
    """Attention of one token, `[1, heads, dim]`, to entries `low .. low + length - 1` of a run of all KV heads, in as
    few operations as that takes; None where heads are too few and too long to be given to threads as they are, or
    are of 8 or 4 bits."""
    heads, group = run.heads, query.shape[1] // run.heads
    alone = heads % torch.get_num_threads() != 0  # a thread then has rows of heads and not heads
    if run.keys.dtype in CODINGS:
        return None
    if alone and length * (run.keys.shape[2] + run.values.shape[2]) * run.keys.element_size() >= CACHE:
        return None
    own = query.to(run.keys.dtype)
    own = own.view(heads, group, 1, -1) if alone else own.view(1, heads, group, -1)
    keys, values = (
        _repeated(x, group, low, length) if alone else x[None].narrow(2, low, length) for x in (run.keys, run.values)
    )
    output, lse = _flash(own, keys, values, scale)
    return output.reshape(1, heads * group, -1).to(query.dtype), lse.reshape(1, -1)


def _repeated(x: torch.Tensor, group: int, low: int, length: int) -> torch.Tensor:
    """`[heads, group, length, dim]` of `x [heads, room, dim]`, seen `group` times where it lies."""
    heads, _, dim = x.shape
    apart, row, channel = x.stride()
    return x.as_strided((heads, group, length, dim), (apart, 0, row, channel), x.storage_offset() + low * row)


def _mask(pool: PagePool, segment: Segment, run: Run, low: int, length: int, row: Row, scores: Scores) -> torch.Tensor:
    """`[tokens, length - low]` (bool): which entry which token sees."""
    size = pool.page_size
    stored = pool.positions.as_strided((length - low,), (1,), run.base * size + low)
    at = stored + segment.shift
    own = torch.from_numpy(row.places)[:, None]
    seen = at[None] <= own
    if scores.window is not None:
        seen &= at[None] > own - scores.window
    if segment.alive is not None:
        seen &= torch.from_numpy(segment.alive[run.first + low : run.first + length])[None]
    return seen


def _fresh(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores, row: Row) -> Part:
    """What the tokens of a row see of each other: themselves and those before, within the window."""
    tokens, heads, dim = key.shape
    group = query.shape[1] // heads
    rows = query.reshape(tokens, heads, group, dim).permute(1, 2, 0, 3)
    keys = key.transpose(0, 1)[:, None].expand(heads, group, tokens, dim)
    values = value.transpose(0, 1)[:, None].expand(heads, group, tokens, value.shape[2])
    if scores.softcap is None and (scores.window is None or scores.window > row.last - row.position):
        output, lse = _flash(rows, keys, values, scores.scale, causal=True)
    else:
        at = torch.from_numpy(row.places)
        mask = at[None] <= at[:, None]
        if scores.window is not None:
            mask &= at[None] > at[:, None] - scores.window
        output, lse = _products(rows, keys, values, scores, Seen.where(mask, 1))
    return output.permute(2, 0, 1, 3).reshape(tokens, heads * group, -1), lse.permute(2, 0, 1).reshape(tokens, -1)


def _products(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scores: Scores, seen: Seen | None) -> Part:
    """`query [.., heads, rows, dim]` with `keys`, `values [.., heads, entries, dim]`, as far as they are `seen`. Keys
    and values may be of fewer bits than queries, which are then rounded to those."""
    own = query.dtype
    if scores.softcap is None:
        query = query.to(keys.dtype)
        if seen is not None:
            output, lse = _masked(query, keys, values, scores.scale, seen)
        else:
            output, lse = (_spread if query.dim() == 3 else _flash)(query, keys, values, scores.scale)
        return output.to(own), lse
    logits = (query.to(keys.dtype) @ keys.transpose(-1, -2)).float() * scores.scale
    logits = scores.softcap * torch.tanh(logits / scores.softcap)
    if seen is not None:
        logits = logits.masked_fill(~seen.mask, -torch.inf)
    lse = torch.logsumexp(logits, -1)
    weights = torch.exp(logits - lse.clamp_min(torch.finfo(lse.dtype).min)[..., None])
    return (weights.to(values.dtype) @ values).to(own), lse


def _spread(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> Part:
    """As `_flash` for `[heads, rows, dim]`; a few rows over many entries are cut so that all threads have work: by
    rows, which each read all of a head, while that fits a cache, else by entries."""
    (heads, entries), rows = keys.shape[:2], query.shape[1]
    threads = torch.get_num_threads()
    if rows > FEW or entries < SPLIT or heads % threads == 0:
        output, lse = _flash(query[None], keys[None], values[None], scale)
        return output[0], lse[0]
    if entries * (keys.shape[2] + values.shape[2]) * keys.element_size() < CACHE:
        own, other = (x[:, None].expand(heads, rows, *x.shape[1:]) for x in (keys, values))
        output, lse = _flash(query[:, :, None], own, other, scale)
        return output[:, :, 0], lse[:, :, 0]
    half = entries // threads
    cut = half * threads
    blocks = [x[:, :cut].view(heads, threads, half, -1).transpose(0, 1) for x in (keys, values)]
    output, lse = _flash(query[None].expand(threads, *query.shape), blocks[0], blocks[1], scale)
    parts = list(zip(output, lse, strict=True))
    if cut < entries:
        output, lse = _flash(query[None], keys[None, :, cut:], values[None, :, cut:], scale)
        parts.append((output[0], lse[0]))
    return merge(parts)


def _masked(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, seen: Seen) -> Part:
    """As `_flash` for `[.., heads, rows, dim]` and entries that are `seen`."""
    whole = query.dim() == 4
    some = (query, keys, values) if whole else (query[None], keys[None], values[None])
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, lse = kernel(*some, 0.0, False, attn_mask=seen.added, scale=scale)
    if seen.blind is not None:
        lse = lse.masked_fill(seen.blind, -torch.inf)  # it says 0 of a row that sees nothing
    return (output, lse) if whole else (output[0], lse[0])


def _flash(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, causal: bool = False) -> Part:
    """`[batch, heads, rows, dim]` all; PyTorch's own kernel, which also tells the log-sum-exp."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, lse = kernel(query, keys, values, 0.0, causal, scale=scale)
    return output, lse


def _nothing(query: torch.Tensor) -> Part:
    return torch.zeros_like(query), torch.full(query.shape[:2], -torch.inf)


def _by_head(parts: Many[Many[Part]], fresh: Part | None, query: torch.Tensor, heads: int) -> Part:
    """Merged where runs do not all cover all heads: `parts[h]` begin at head `h`."""
    group = query.shape[1] // heads
    own: list[list[Part]] = [[] for _ in range(heads)]
    for head, found in enumerate(parts):
        for output, lse in found:
            for at in range(output.shape[1] // group):
                some = slice(at * group, (at + 1) * group)
                own[head + at].append((output[:, some], lse[:, some]))
    merged = []
    for head in range(heads):
        some = slice(head * group, (head + 1) * group)
        if fresh:
            own[head].append((fresh[0][:, some], fresh[1][:, some]))
        merged.append(merge(own[head]) if own[head] else _nothing(query[:, some]))
    return torch.cat([output for output, _ in merged], 1), torch.cat([lse for _, lse in merged], 1)
