"""Rewriting the graph into fewer operations with the same result.

- What is computed twice is computed once, what nobody uses not at all.
- Products of the same vectors with several matrices (queries, keys, values; gate and up) become one.
- Norms in float32 take five operations instead of eleven.
- The rotation of positions (Su et al. 2021, arXiv 2104.09864) takes three operations instead of seven.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from longreach.model.fast.graph import constant
from longreach.model.fast.norms import divided
from longreach.model.fast.record import attention

_PURE = {
    "__getitem__",
    "getitem",
    "to",
    "float",
    "cos",
    "sin",
    "view",
    "transpose",
    "unsqueeze",
    "mul",
    "add",
    "neg",
    "size",
}


def name_of(node: Any) -> str:
    """What a node calls, without its class."""
    return getattr(node.target, "__name__", "") if isinstance(node, fx.Node) and node.op == "call_function" else ""


def tidy(graph: fx.Graph) -> None:
    """Merge equal operations, drop unused ones. Nothing that writes into a tensor is touched."""
    if any(map(_in_place, map(name_of, graph.nodes))):
        return
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if name_of(node) in _PURE:
            key = (node.target, _frozen(node.args), _frozen(node.kwargs))
            if key in known:
                node.replace_all_uses_with(known[key])
                graph.erase_node(node)
            else:
                known[key] = node
    drop_unused(graph)


def rotate_quickly(graph: fx.Graph) -> None:
    """`x * cos + cat(-x₂, x₁) * sin` as `x * cos + roll(x) * sin'`, where `sin'` has its first half negated, once."""
    signed: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        found = rotation(node)
        if not found:
            continue
        x, cos, sin, half = found
        if sin not in signed:
            with graph.inserting_after(sin):
                signed[sin] = graph.call_function(_signed, (sin, half))
        with graph.inserting_before(node):
            plain = graph.call_function(torch.mul, (x, cos))
            swapped = graph.call_function(torch.roll, (x, half, -1))
            new = graph.call_function(torch.addcmul, (plain, swapped, signed[sin]))
        node.replace_all_uses_with(new)
    drop_unused(graph)


def rotate_together(graph: fx.Graph) -> None:
    """Queries and keys that are neighbours in one product are turned in one go."""
    for node in list(graph.nodes):
        if node.target is not attention:
            continue
        query, key = _turned(node.args[1]), _turned(node.args[2])
        if query is None or key is None or query.whole is not key.whole or query.end != key.start:
            continue
        if query.by != key.by or query.dim != key.dim:
            continue
        given = (query.whole, query.start, query.end, key.end, query.dim, *query.by)
        with graph.inserting_before(query.node if query.node < key.node else key.node):
            both = graph.call_function(turned_together, given)
            parts = [graph.call_function(operator.getitem, (both, at)) for at in range(2)]
        query.node.replace_all_uses_with(parts[0])
        key.node.replace_all_uses_with(parts[1])
    drop_unused(graph)


def turned_together(
    whole: Tensor, begin: int, middle: int, end: int, dim: int, cos: Tensor, sin: Tensor, half: int
) -> tuple[Tensor, Tensor]:
    """Queries `[1, heads, T, dim]`, channels `begin .. middle - 1` of `whole [1, T, channels]`, and keys, those up to
    `end`, turned by angles `[1, 1, T, dim]`; the first half of `sin` is negated."""
    both = whole.narrow(-1, begin, end - begin).view(1, whole.shape[1], -1, dim).transpose(1, 2)
    turned = torch.addcmul(both * cos, both.roll(half, -1), sin)
    heads = (middle - begin) // dim
    return turned.narrow(1, 0, heads), turned.narrow(1, heads, (end - middle) // dim)


@dataclass(frozen=True, slots=True)
class _Turned:
    """Channels `start .. end - 1` of a product, as heads of `dim`, turned by `by`: cosines, sines, half of them."""

    node: fx.Node
    whole: fx.Node
    start: int
    end: int
    dim: int
    by: tuple[fx.Node, fx.Node, int]


def _turned(node: Any) -> _Turned | None:
    """What `rotate_quickly` made of a rotation of heads that `merge_products` cut from a product, if `node` is that and
    all of it."""
    if name_of(node) != "addcmul" or len(node.users) > 1 or len(node.args) != 3:
        return None
    plain, swapped, sin = node.args
    if name_of(plain) != "mul" or name_of(swapped) != "roll" or swapped.args[0] is not plain.args[0]:
        return None
    heads = plain.args[0]
    if name_of(heads) != "transpose" or heads.args[1:] != (1, 2) or name_of(heads.args[0]) != "view":
        return None
    part, shape = heads.args[0].args[0], heads.args[0].args[1:]
    shape = shape[0] if len(shape) == 1 else shape
    if name_of(part) != "narrow" or part.args[1] != -1 or len(shape) != 4 or shape[0] != 1:
        return None
    if not isinstance(shape[3], int) or swapped.args[1] * 2 != shape[3] or part.args[3] % shape[3]:
        return None
    whole, _, start, length = part.args
    return _Turned(node, whole, start, start + length, shape[3], (plain.args[1], sin, swapped.args[1]))


def _signed(sin: Tensor, half: int) -> Tensor:
    return torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


def rotation(node: Any) -> tuple[fx.Node, fx.Node, fx.Node, int] | None:
    """`(x, cos, sin, half of the dimension)` where `node` ends a rotation."""
    if name_of(node) not in ("add", "__add__"):
        return None
    plain, turned = node.args[0], node.args[1]
    if not (is_call(plain, "mul") and is_call(turned, "mul")):
        return None
    x, cos = plain.args
    swapped, sin = turned.args
    if not (is_call(swapped, "cat") and isinstance(sin, fx.Node) and isinstance(cos, fx.Node)):
        return None
    parts = swapped.args[0]
    if not (isinstance(parts, tuple | list) and len(parts) == 2 and is_call(parts[0], "neg")):
        return None
    second, first = parts[0].args[0], parts[1]
    if not (
        is_call(second, "__getitem__") and is_call(first, "__getitem__") and second.args[0] is x and first.args[0] is x
    ):
        return None
    (_, upper), (_, lower) = (_last_slice(second.args[1]), _last_slice(first.args[1]))
    if upper is None or lower is None or upper.stop is not None or lower.start is not None:
        return None
    if not isinstance(upper.start, int) or upper.start != lower.stop:
        return None
    return x, cos, sin, upper.start


def _last_slice(index: Any) -> tuple[Any, slice | None]:
    if isinstance(index, tuple) and len(index) == 2 and index[0] is Ellipsis and isinstance(index[1], slice):
        return index[0], index[1]
    return None, None


def divide_quickly(graph: fx.Graph) -> None:
    """Norms in float32 on a processor in fewer steps than PyTorch's own."""
    for node in list(graph.nodes):
        if node.target is not torch.rms_norm:
            continue
        x, _, weight, eps = node.args
        value = weight.meta["value"]
        if value.dtype != torch.float32 or value.device.type != "cpu":
            continue
        with graph.inserting_before(node):
            scaled = constant(graph, value * len(value) ** 0.5)
            offset = constant(graph, torch.tensor(eps * len(value)))
            node.replace_all_uses_with(graph.call_function(divided, (x, scaled, offset)))
    drop_unused(graph)


def merge_products(graph: fx.Graph) -> None:
    """One product where several matrices multiply the same vectors. The weights move into one tensor, of which those of
    the model become parts, so that no memory is taken; they stay where they moved before."""
    groups: dict[tuple[fx.Node, bool], list[fx.Node]] = {}
    for node in graph.nodes:
        if weights_of(node) is not None:
            groups.setdefault((node.args[0], weights_of(node)[1] is not None), []).append(node)  # type: ignore[index]
    for (x, biased), nodes in groups.items():
        parameters = [weights_of(node) for node in nodes]
        weights = [each[0] for each in parameters if each]
        if len(nodes) < 2 or len({id(weight) for weight in weights}) < len(nodes) or any(_shared(n) for n in nodes):
            continue
        weight = _together(weights)
        bias = _together([each[1] for each in parameters if each and each[1] is not None]) if biased else None
        if weight is None or (biased and bias is None):
            continue
        with graph.inserting_before(nodes[0]):
            whole = constant(graph, weight)
            extra = constant(graph, bias) if bias is not None else None
            merged = graph.call_function(torch.nn.functional.linear, (x, whole, extra))
            start = 0
            for node, part in zip(nodes, weights, strict=True):
                new = graph.call_function(torch.narrow, (merged, -1, start, len(part)))
                node.replace_all_uses_with(new)
                start += len(part)
    drop_unused(graph)


def weights_of(node: Any) -> tuple[Tensor, Tensor | None] | None:
    """Weight `[out, in]` and bias of a product with a constant matrix."""
    if node.target is not torch.nn.functional.linear or node.kwargs or len(node.args) not in (2, 3):
        return None
    weight, bias = node.args[1], node.args[2] if len(node.args) == 3 else None
    if not (isinstance(weight, fx.Node) and weight.op == "get_attr" and weight.meta["value"].ndim == 2):
        return None
    if isinstance(bias, fx.Node) and bias.op != "get_attr":
        return None
    return weight.meta["value"], bias.meta["value"] if isinstance(bias, fx.Node) else None


def _shared(node: Any) -> bool:
    """Whether the weight serves elsewhere too."""
    return len(node.args[1].users) > 1 or not isinstance(node.args[1].meta["value"], nn.Parameter)


def _together(parts: list[Tensor]) -> Tensor | None:
    """All of `parts` as one, of which each is then a piece: gradients may still be asked of them. None where they are
    parts of something else."""
    sizes, first = [part.nbytes for part in parts], parts[0]
    if [part.untyped_storage().nbytes() for part in parts] != sizes:
        begins = [first.data_ptr() + sum(sizes[:at]) for at in range(len(parts))]
        if first.untyped_storage().nbytes() != sum(sizes) or [part.data_ptr() for part in parts] != begins:
            return None
        return first.detach().as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())
    with torch.inference_mode(False):
        whole = torch.cat([part.detach() for part in parts])
        start = 0
        for part in parts:
            part.data = whole[start : start + len(part)]
            start += len(part)
    return whole


def is_call(node: Any, name: str) -> bool:
    """Whether `node` calls `name`, as a function or by its operator."""
    return name_of(node) in (name, f"__{name}__")


def _in_place(name: str) -> bool:
    return (name.startswith("__i") and name not in ("__invert__",)) or (name.endswith("_") and not name.endswith("__"))


def drop_unused(graph: fx.Graph) -> None:
    """Take out what nobody uses."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op in ("call_function", "get_attr") and not _in_place(name_of(node)):
            graph.erase_node(node)


def _frozen(value: Any) -> Any:
    """`value` as a key of a dictionary; numbers keep their type apart."""
    if isinstance(value, tuple | list):
        return (type(value), *map(_frozen, value))
    if isinstance(value, dict):
        return tuple((key, _frozen(each)) for key, each in value.items())
    if isinstance(value, slice):
        return ("slice", _frozen(value.start), _frozen(value.stop), _frozen(value.step))
    return (type(value), value)
