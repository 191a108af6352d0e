"""Rewriting the graph for CUDA: between two products of a layer, one kernel (`triton_rows`)."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from longreach.model.fast.record import attention
from longreach.model.fast.rewrite import drop_unused, is_call, name_of, rotation


def fuse(graph: fx.Graph) -> None:
    """Sums with the norms that follow, gates with what they let through, the rotations of queries with those of
    keys."""
    for node in list(graph.nodes):
        if node.target is torch.rms_norm:
            _fuse_norm(graph, node)
        elif is_call(node, "mul"):
            _fuse_gate(graph, node)
        elif node.target is attention:
            _fuse_rotations(graph, node)
    drop_unused(graph)


def _fuse_norm(graph: fx.Graph, node: Any) -> None:
    from longreach.model.fast.triton_rows import add_norm

    total, _, weight, eps = node.args
    if not (is_call(total, "add") and _tensors(total)):
        return
    with graph.inserting_before(total):
        both = graph.call_function(add_norm, (*total.args, weight, eps))
        parts = [graph.call_function(operator.getitem, (both, at)) for at in range(2)]
    total.replace_all_uses_with(parts[0])
    node.replace_all_uses_with(parts[1])


_GATES = {"silu": True, "gelu": False}


def _fuse_gate(graph: fx.Graph, node: Any) -> None:
    from longreach.model.fast.triton_rows import gated

    for gate, up in (node.args, node.args[::-1]):
        name = name_of(gate)
        if name not in _GATES or not isinstance(up, fx.Node) or len(gate.users) > 1:
            continue
        if name == "gelu" and gate.kwargs.get("approximate", "none") != "tanh":
            continue
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_function(gated, (gate.args[0], up, _GATES[name])))
        return


def _fuse_rotations(graph: fx.Graph, node: Any) -> None:
    from longreach.model.fast.triton_rows import rotated

    query, key = node.args[1], node.args[2]
    one, other = rotation(query), rotation(key)
    if not (one and other and one[1:] == other[1:]) or len(query.users) > 1 or len(key.users) > 1:
        return
    (x, cos, sin, _), y = one, other[0]
    with graph.inserting_before(node):
        both = graph.call_function(rotated, (x, y, cos, sin))
        parts = [graph.call_function(operator.getitem, (both, at)) for at in range(2)]
    query.replace_all_uses_with(parts[0])
    key.replace_all_uses_with(parts[1])


def _tensors(node: Any) -> bool:
    return len(node.args) == 2 and all(isinstance(each, fx.Node) for each in node.args) and not node.kwargs
