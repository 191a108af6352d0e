"""From recordings to one graph that holds for any number of tokens.

A recording holds the sizes of its run as plain numbers. Two runs of different sizes tell which of them follow the
number of tokens or of rows: a number that is the same in both is constant, any other must be a multiple of one of them
plus a rest. The graph is torch.fx's, with constants as `get_attr` nodes whose `meta["value"]` is the object.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from longreach.model.fast.record import Call, Constant, Recording, Ref

SIZES = ((11, 2), (24, 4))
"""Tokens and rows of the two runs: no step from one to the other is a multiple of the other's (13 and 2)."""


class Mismatch(Exception):
    """The two runs did different things."""


def size(tensor: Any, dimension: int) -> int:
    """The graph's own way to the number of tokens and rows."""
    return int(tensor.shape[dimension])


class Builder:
    """Builds the graph from two recordings of runs with the sizes `SIZES`."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self._inputs = [self.graph.placeholder(name) for name in ("ids", "positions", "rows")]
        self._constants: dict[int, fx.Node] = {}
        self._sizes: dict[tuple[Any, ...], fx.Node] = {}
        self._nodes: list[tuple[fx.Node, ...]] = []

    def build(self, first: Recording, second: Recording) -> fx.Graph:
        """Raises Mismatch where the recordings differ in more than sizes."""
        if len(first.calls) != len(second.calls):
            raise Mismatch("the number of operations follows the number of tokens")
        for one, other in zip(first.calls, second.calls, strict=True):
            self._add(one, other)
        self.graph.output(self._merge(first.result, second.result))
        return self.graph

    def _add(self, one: Call, other: Call) -> None:
        if (one.function, one.outputs, one.single) != (other.function, other.outputs, other.single):
            raise Mismatch(f"{one.function} became {other.function}")
        args, kwargs = self._merge(one.args, other.args), self._merge(one.kwargs, other.kwargs)
        if isinstance(one.function, Callable) and hasattr(one.function, "forward"):  # type: ignore[arg-type]
            node = self.graph.call_function(call, (constant(self.graph, one.function, self._constants), *args), kwargs)
        else:
            node = self.graph.call_function(one.function, args, kwargs)
        if one.single:
            self._nodes.append((node,))
        else:
            each = (self.graph.call_function(operator.getitem, (node, at)) for at in range(one.outputs))
            self._nodes.append(tuple(each))

    def _merge(self, one: Any, other: Any) -> Any:
        """The argument that stands for `one` in the first run and `other` in the second."""
        if type(one) is not type(other):
            raise Mismatch(f"{one!r} became {other!r}")
        if isinstance(one, Ref):
            if one != other:
                raise Mismatch("an operation took another's result")
            return self._inputs[one.output] if one.call < 0 else self._nodes[one.call][one.output]
        if isinstance(one, Constant):
            if one != other:
                raise Mismatch("a weight became another")
            return constant(self.graph, one.value, self._constants)
        if isinstance(one, tuple | list):
            if len(one) != len(other):
                raise Mismatch("a list became longer")
            merged = [self._merge(a, b) for a, b in zip(one, other, strict=True)]
            return merged if isinstance(one, list) else tuple(merged)
        if isinstance(one, dict):
            if one.keys() != other.keys():
                raise Mismatch("other options were given")
            return {key: self._merge(value, other[key]) for key, value in one.items()}
        if isinstance(one, slice):
            parts = ((one.start, other.start), (one.stop, other.stop), (one.step, other.step))
            return slice(*(self._merge(a, b) for a, b in parts))
        if one is other or one == other:
            return one
        if isinstance(one, int):
            return self._size(one, other)
        raise Mismatch(f"{one!r} became {other!r}")

    def _size(self, one: int, other: int) -> fx.Node:
        """A node for a number that follows the sizes."""
        for tensor, dimension, before, after in (
            (self._inputs[0], 1, SIZES[0][0], SIZES[1][0]),
            (self._inputs[2], 0, SIZES[0][1], SIZES[1][1]),
        ):
            if (other - one) % (after - before) == 0:
                times = (other - one) // (after - before)
                rest = one - times * before
                node = self._once(size, tensor, dimension)
                node = node if times == 1 else self._once(operator.mul, node, times)
                return node if rest == 0 else self._once(operator.add, node, rest)
        raise Mismatch(f"the number {one} became {other}")

    def _once(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        key = (function, *args)
        if key not in self._sizes:
            self._sizes[key] = self.graph.call_function(function, args)
        return self._sizes[key]


def call(module: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a module that was recorded as one call."""
    return module(*args, **kwargs)


def constant(graph: fx.Graph, value: Any, known: dict[int, fx.Node] | None = None) -> fx.Node:
    """A node for `value`; where `known` is given, the same one for the same object."""
    if known is not None and id(value) in known:
        return known[id(value)]
    node = graph.create_node("get_attr", f"constant_{len(graph.nodes)}")
    node.meta["value"] = value
    if known is not None:
        known[id(value)] = node
    return node


def copied(graph: fx.Graph, last: fx.Node | None = None) -> fx.Graph:
    """A copy, with its constants; where `last` is given, of what comes up to it, and that is the result."""
    copy = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    calls = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    constants = [node for node in graph.nodes if node.op == "get_attr"]  # they may stand behind their users
    for node in [*constants, *(calls if last is None else calls[: calls.index(last) + 1])]:
        nodes[node] = copy.node_copy(node, nodes.__getitem__)
        nodes[node].meta = dict(node.meta)
    copy.output(nodes[last or next(node for node in graph.nodes if node.op == "output").args[0]])
    return copy
