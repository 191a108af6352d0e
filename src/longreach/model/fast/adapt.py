"""The quick form of a model together with an adapter.

Every weight that the adapter changes is replaced by its sum with what the adapter adds, so that a product costs no more
than without. That takes as much memory as those weights do; the model's own stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from longreach.model.adapter import Adapter
from longreach.model.fast.graph import constant, copied
from longreach.model.fast.quicken import Attention, Fast, difference, own_forward, without_logits
from longreach.model.fast.rewrite import weights_of
from longreach.model.fast.write import write

_NEAR = 1e-4
"""Parts of the largest logit by which the form may be off in float32: sums are taken in another order."""


def with_adapter(model: Any, fast: Fast, adapter: Adapter) -> Fast | None:
    """The form of `model` with `adapter`, which is `on` it, from the model's own quick form; checked against the model
    with the adapter applied. None where there is none: a product is not to be found, or there is no memory for it."""
    if fast.graph is None:
        return None
    try:
        graph, taken = _summed(fast.graph, model, adapter)
        exact = write(graph)
        wrong = difference(model, _applied(model, adapter), exact, _NEAR)
    except (RuntimeError, LookupError):
        return None
    return None if wrong else Fast(exact, exact, 0, True, "", taken, write(without_logits(graph)), graph)


def _summed(graph: fx.Graph, model: Any, adapter: Adapter) -> tuple[fx.Graph, int]:
    """A copy of `graph` with the adapter in its weights, in the model's dtype, and the bytes of those. Raises
    LookupError where a module of the adapter is no product of the graph, or they would not fit."""
    copy = copied(graph)
    parts = {name: model.get_submodule(name).weight for name in adapter.down}
    changed = {node: found for node in copy.nodes if (found := _within(node, parts))}
    if {name for found in changed.values() for name in found} != set(parts):
        raise LookupError("the adapter changes what is no product of the quick form")
    size = sum(node.args[1].meta["value"].nbytes for node in changed)
    if size > _free(model.device) // 2:
        raise LookupError("there is no room for the weights with the adapter in them")
    for node, found in changed.items():
        weight, _ = weights_of(node) or (None, None)
        assert weight is not None
        whole, fine = weight.detach().clone(), torch.promote_types(weight.dtype, torch.float32)
        for name, first in found.items():
            up, down = (part[name].to(fine) for part in (adapter.up, adapter.down))
            rows = whole[first : first + len(up)]
            rows.copy_(torch.addmm(rows.to(fine), up, down, alpha=adapter.scale))
        with copy.inserting_before(node):
            node.update_arg(1, constant(copy, whole))
    return copy, size


def _within(node: fx.Node, parts: dict[str, Tensor]) -> dict[str, int]:
    """Which of `parts` the weight of a product is made of, each with its first row there: the weights of the model may
    be parts of one tensor by now (`merge_products`)."""
    weight, _ = weights_of(node) or (None, None)
    if weight is None:
        return {}
    begin, row = weight.data_ptr(), weight.stride(0) * weight.element_size()
    end = begin + weight.nbytes
    return {
        name: (part.data_ptr() - begin) // row
        for name, part in parts.items()
        if part.shape[1] == weight.shape[1] and begin <= part.data_ptr() < end
    }


def _applied(model: Any, adapter: Adapter) -> Callable[..., Tensor]:
    slow = own_forward(model)

    def run(ids: Tensor, positions: Tensor, rows: Tensor, attention: Attention) -> Tensor:
        with adapter.applied(model):
            return slow(ids, positions, rows, attention)

    return run


def _free(device: torch.device) -> int:
    """Bytes of memory that nobody uses."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
