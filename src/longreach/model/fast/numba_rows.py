"""What happens to the vectors of a few tokens between two products, on a processor: sums and norms, gates, rotations.

Each is one compiled kernel on one thread where PyTorch takes three to eight operations, which for one token cost more
than what they compute. Importing this imports Numba.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from numba import float32, int64, njit, void
from torch import Tensor, fx

from longreach.attention.numba_tools import FAST, exp, read, write
from longreach.model.fast.norms import divided
from longreach.model.fast.rewrite import drop_unused, is_call, name_of, turned_together

ROWS: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy", "cache": True}


def fuse_rows(graph: fx.Graph) -> None:
    """Let the kernels here take over what `rewrite` left of a graph in float32."""
    for node in list(graph.nodes):
        if node.target is divided and is_call(node.args[0], "add") and _of_tensors(node.args[0]):
            total, scaled, offset = node.args
            with graph.inserting_before(total):
                both = graph.call_function(add_divided, (*total.args, scaled, float(offset.meta["value"])))
                parts = [graph.call_function(operator.getitem, (both, at)) for at in range(2)]
            total.replace_all_uses_with(parts[0])
            node.replace_all_uses_with(parts[1])
        elif is_call(node, "mul") and _of_tensors(node):
            gate, up = node.args if name_of(node.args[0]) == "silu" else node.args[::-1]
            if name_of(gate) == "silu" and len(gate.users) == 1:
                with graph.inserting_before(node):
                    node.replace_all_uses_with(graph.call_function(gated, (gate.args[0], up)))
        elif node.target is turned_together:
            node.target = turned
    drop_unused(graph)


def add_divided(x: Tensor, y: Tensor, scaled: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    """`x + y [.., size]`, and its norm as `divided` has it."""
    if not (_plain(x) and _plain(y) and x.shape == y.shape):
        total = x + y
        return total, divided(total, scaled, torch.tensor(offset))
    total, normed = torch.empty_like(x), torch.empty_like(x)
    size = x.shape[-1]
    addresses = (each.data_ptr() for each in (x, y, scaled, total, normed))
    _add_divided(*addresses, x.numel() // size, size, offset)
    return total, normed


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, all `[1, T, size]`."""
    if not (gate.dtype == up.dtype == torch.float32 and gate.dim() == 3 and gate.stride(2) == up.stride(2) == 1):
        return torch.nn.functional.silu(gate) * up
    out = gate.new_empty(gate.shape)
    rows = out.shape[1], gate.stride(1), up.stride(1), out.shape[2]
    _gated(gate.data_ptr(), up.data_ptr(), out.data_ptr(), *rows)
    return out


def turned(
    whole: Tensor, begin: int, middle: int, end: int, dim: int, cos: Tensor, sin: Tensor, half: int
) -> tuple[Tensor, Tensor]:
    """As `turned_together`."""
    if not (_plain(whole) and _plain(cos) and _plain(sin) and 2 * half == dim):
        return turned_together(whole, begin, middle, end, dim, cos, sin, half)
    tokens, outs = whole.shape[1], []
    for first, last in ((begin, middle), (middle, end)):
        heads = (last - first) // dim
        out = whole.new_empty((1, heads, 1, dim) if tokens == 1 else (1, tokens, heads, dim))
        addresses = (whole.data_ptr() + 4 * first, cos.data_ptr(), sin.data_ptr(), out.data_ptr())
        _turned(*addresses, tokens, whole.shape[2], heads, half)
        outs.append(out if tokens == 1 else out.transpose(1, 2))
    return outs[0], outs[1]


@njit(void(*[int64] * 7, float32), **ROWS)
def _add_divided(x: Any, y: Any, scaled: Any, total: Any, normed: Any, rows: Any, size: Any, offset: Any) -> None:
    like = np.float32(0)
    for row in range(rows):
        first = row * size
        length = offset
        for at in range(size):
            added = read(x, first + at, like) + read(y, first + at, like)
            write(total, first + at, added, like)
            length += added * added
        share = np.float32(1) / np.sqrt(length)
        for at in range(size):
            write(normed, first + at, read(total, first + at, like) * share * read(scaled, at, like), like)


@njit(void(*[int64] * 7), **ROWS)
def _gated(gate: Any, up: Any, out: Any, rows: Any, gate_apart: Any, up_apart: Any, size: Any) -> None:
    like = np.float32(0)
    for row in range(rows):
        for at in range(size):
            x = read(gate, row * gate_apart + at, like)
            power = exp(min(x, -x))
            share = (np.float32(1) if x >= 0 else power) / (np.float32(1) + power)
            write(out, row * size + at, x * share * read(up, row * up_apart + at, like), like)


@njit(void(*[int64] * 8), **ROWS)
def _turned(x: Any, cos: Any, sin: Any, out: Any, rows: Any, apart: Any, heads: Any, half: Any) -> None:
    like = np.float32(0)
    for row in range(rows):
        angle = row * 2 * half
        for head in range(heads):
            own, to = row * apart + head * 2 * half, (row * heads + head) * 2 * half
            # The first half of the sines is negated. Two loops: of fewer places each it is sure that they lie apart.
            for at in range(half):
                low, high = read(x, own + at, like), read(x, own + half + at, like)
                write(out, to + at, low * read(cos, angle + at, like) + high * read(sin, angle + at, like), like)
            angle_high = angle + half
            for at in range(half):
                low, high = read(x, own + at, like), read(x, own + half + at, like)
                changed = high * read(cos, angle_high + at, like) + low * read(sin, angle_high + at, like)
                write(out, to + half + at, changed, like)


def _plain(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.is_contiguous()


def _of_tensors(node: Any) -> bool:
    return len(node.args) == 2 and all(isinstance(each, fx.Node) for each in node.args) and not node.kwargs
