"""The graph with its products in fewer bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor, fx

from longreach.model.fast.graph import call, constant, copied
from longreach.model.fast.products import (
    Product,
    dynamically,
    fits,
    in_4_bits,
    in_4_bits_or_8,
    in_4_bits_or_8_by_rows,
    in_8_bits,
)
from longreach.model.fast.rewrite import weights_of

Format: TypeAlias = Literal["own", "auto", "int8", "int4", "dynamic"]

_SMALL = 1 << 14  # elements; smaller matrices, such as those that choose experts, are left alone


def quantised(graph: fx.Graph, form: Format) -> tuple[fx.Graph, int]:
    """A copy of `graph` with its constant matrices in `form`, and the bytes that they take.

    `auto` takes 4 bits where that loses next to nothing, else 8, and `int4` does so for the last product, with the
    vocabulary. A matrix of a shape for which there is no quick product stays as it is.
    """
    copy = copied(graph)
    taken = 0
    products = [node for node in copy.nodes if weights_of(node) is not None] if form != "own" else []
    for node in products:
        weight, bias = weights_of(node) or (None, None)
        if weight is None or weight.numel() < _SMALL or (form != "dynamic" and not fits(weight)):
            continue
        make = _maker(form, last=node is products[-1])
        run, size = make(weight, bias)
        taken += size
        with copy.inserting_before(node):
            new = copy.call_function(call, (constant(copy, run), node.args[0]))
        node.replace_all_uses_with(new)
        copy.erase_node(node)
    return copy, taken


def _maker(form: Format, *, last: bool) -> Callable[[Tensor, Tensor | None], tuple[Product, int]]:
    if form == "dynamic":
        return dynamically
    if form == "int8":
        return in_8_bits
    if last:
        return in_4_bits_or_8_by_rows
    return in_4_bits if form == "int4" else in_4_bits_or_8
