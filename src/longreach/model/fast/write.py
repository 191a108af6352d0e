"""A graph as one straight Python function: no modules, no hooks, and every value freed after its last use."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from longreach.model.fast.graph import call
from longreach.model.fast.record import attention

_INFIX = {operator.mul: "*", operator.add: "+"}


def write(graph: fx.Graph) -> Callable[..., Tensor]:
    """`function(ids, positions, rows, attend)`, compiled from the graph."""
    writer = _Writer(graph)
    return writer.compiled()


class _Writer:
    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._globals: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def compiled(self) -> Callable[..., Tensor]:
        lines = ["def run(ids, positions, rows, attend):"]
        last = self._last_uses()
        for node in self._graph.nodes:
            if node.op == "output":
                lines.append(f"    return {self._value(node.args[0])}")
            elif node.op == "call_function":
                lines.append(f"    {node.name} = {self._call(node)}")
            if ended := [each.name for each in last.get(node, []) if each is not node]:
                lines.append(f"    {' = '.join(ended)} = None")
        exec(compile("\n".join(lines), "<a model's operations>", "exec"), self._globals)
        function: Callable[..., Tensor] = self._globals["run"]
        return function

    def _last_uses(self) -> dict[fx.Node, list[fx.Node]]:
        """Which values are used for the last time by each node."""
        seen: set[fx.Node] = set()
        found: dict[fx.Node, list[fx.Node]] = {}
        for node in reversed(self._graph.nodes):
            for used in node.all_input_nodes:
                if used not in seen and used.op == "call_function" and node.op != "output":
                    found.setdefault(node, []).append(used)
                seen.add(used)
        return found

    def _call(self, node: fx.Node) -> str:
        function, args = node.target, node.args
        if function is attention:
            return f"attend({self._arguments(args, node.kwargs)})[0]"
        if function is call:
            return f"{self._value(args[0])}({self._arguments(args[1:], node.kwargs)})"
        if function in (operator.getitem, Tensor.__getitem__):
            return f"{self._value(args[0])}[{self._index(args[1])}]"
        if function in _INFIX:
            return f"{self._value(args[0])} {_INFIX[function]} {self._value(args[1])}"
        return f"{self._named(function)}({self._arguments(args, node.kwargs)})"

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return ", ".join([*map(self._value, args), *(f"{key}={self._value(value)}" for key, value in kwargs.items())])

    def _index(self, value: Any) -> str:
        if isinstance(value, tuple) and value:
            return ", ".join(map(self._index, value)) + ","
        if isinstance(value, slice):
            parts = [value.start, value.stop, *([value.step] if value.step is not None else [])]
            return ":".join("" if part is None else self._value(part) for part in parts)
        return self._value(value)

    def _value(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self._named(value.meta["value"]) if value.op == "get_attr" else value.name
        if isinstance(value, tuple):
            return f"({''.join(f'{self._value(each)}, ' for each in value)})"
        if isinstance(value, list):
            return f"[{', '.join(map(self._value, value))}]"
        if value is Ellipsis:
            return "..."
        if value is None or isinstance(value, bool | int | str):
            return repr(value)
        return self._named(value)

    def _named(self, value: Any) -> str:
        """A global name of the function for an object."""
        if id(value) not in self._names:
            self._names[id(value)] = name = f"_{len(self._names)}"
            self._globals[name] = value
        return self._names[id(value)]
