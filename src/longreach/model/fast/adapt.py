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
from longreach.model.device import bfloat16_units
from longreach.model.fast.graph import call, constant, copied
from longreach.model.fast.products import in_bfloat16
from longreach.model.fast.quicken import Attention, Fast, difference, own_forward, without_logits
from longreach.model.fast.rewrite import weights_of
from longreach.model.fast.write import write

_NEAR = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Parts of the largest logit by which the form may be off, by the dtype of its weights: sums are taken in another
order, and rounded where that is less fine than the model's."""


def with_adapter(model: Any, fast: Fast, adapter: Adapter) -> Fast | None:
    """The form of `model` with `adapter`, which is `on` it, from the model's own quick form; checked against the model
    with the adapter applied. None where there is none: a product is not to be found, or there is no memory for it."""
    if fast.graph is None:
        return None
    for dtype in _dtypes(model):
        try:
            graph, taken = _summed(fast.graph, model, adapter, dtype)
            exact = write(graph)
            wrong = difference(model, _applied(model, adapter), exact, _NEAR.get(dtype, 0.0))
        except (RuntimeError, LookupError):
            continue
        if not wrong:
            return Fast(exact, exact, 0, True, "", taken, write(without_logits(graph)), graph)
    return None


def _dtypes(model: Any) -> list[torch.dtype]:
    """In what weights may be held, the best first: on a processor what it multiplies quickest (docs/cpu.md)."""
    own: torch.dtype = next(model.parameters()).dtype
    if model.device.type == "cpu" and own == torch.float32 and bfloat16_units() == "matrix":
        return [torch.bfloat16, own]
    return [own]


def _summed(graph: fx.Graph, model: Any, adapter: Adapter, dtype: torch.dtype) -> tuple[fx.Graph, int]:
    """A copy of `graph` with the adapter in its weights, held as `dtype`, and the bytes of those. Raises LookupError
    where a module of the adapter is no product of the graph or they would not fit."""
    copy = copied(graph)
    parts = {name: model.get_submodule(name).weight for name in adapter.down}
    changed = {node: found for node in copy.nodes if (found := _within(node, parts))}
    if {name for found in changed.values() for name in found} != set(parts):
        raise LookupError("the adapter changes what is no product of the quick form")
    size = sum(node.args[1].meta["value"].numel() for node in changed) * dtype.itemsize
    if size > _free(model.device) // 2:
        raise LookupError("there is no room for the weights with the adapter in them")
    for node, found in changed.items():
        weight, bias = weights_of(node) or (None, None)
        assert weight is not None
        whole, fine = weight.detach().clone(), torch.promote_types(weight.dtype, torch.float32)
        for name, first in found.items():
            up, down = (part[name].to(fine) for part in (adapter.up, adapter.down))
            rows = whole[first : first + len(up)]
            rows.copy_(torch.addmm(rows.to(fine), up, down, alpha=adapter.scale))
        with copy.inserting_before(node):
            if dtype == weight.dtype:
                node.update_arg(1, constant(copy, whole))
                continue
            run, _ = in_bfloat16(whole, bias, weight.dtype)
            new = copy.call_function(call, (constant(copy, run), node.args[0]))
        node.replace_all_uses_with(new)
        copy.erase_node(node)
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
