"""Fewer tokens from layer to layer: what travels between the layers of transformers' own models loses rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from longreach.errors import UnsupportedError


class _AllGoneError(Exception):
    """Nothing is left to compute."""


@contextmanager
def narrowing(model: Any, tokens: int, rows: Callable[[], torch.Tensor]) -> Iterator[None]:
    """While this is open, before each layer but the first of a forward of `tokens` tokens all but `rows()` are taken
    out of what travels: numbers of tokens that rise, each time some of the last ones. What each layer is given beside
    (angles, positions) is cut to match. Where none are left, the forward ends there, and so does the block. Not for two
    threads on one model. Raises UnsupportedError where the layers are not to be found."""
    flying = torch.arange(tokens)

    def cut(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal flying
        left = rows()
        if not len(left):
            raise _AllGoneError
        among = torch.searchsorted(flying.to(left.device), left)
        states = args[0] if args else named["hidden_states"]
        flying, fewer = left, states[:, among]
        beside = {name: _cut(value, tokens, left) for name, value in named.items() if name != "hidden_states"}
        if args:
            return (fewer, *(_cut(value, tokens, left) for value in args[1:])), beside
        return (), {"hidden_states": fewer, **beside}

    hooks = [layer.register_forward_pre_hook(cut, with_kwargs=True) for layer in layers_of(model)[1:]]
    try:
        with suppress(_AllGoneError):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def layers_of(model: Any) -> list[nn.Module]:
    """The layers of a decoder of transformers, in order. Raises UnsupportedError where they are not a list of modules
    that attend once each."""
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    for found in model.modules():
        if isinstance(found, nn.ModuleList) and [_attending(layer) for layer in found] == [{n} for n in range(count)]:
            return list(found)
    raise UnsupportedError(f"the layers of {type(model).__name__} are not to be found: no token can leave midway")


def _attending(layer: nn.Module) -> set[int]:
    """The numbers of the layers that attend within `layer`."""
    return {vars(part)["layer_idx"] for part in layer.modules() if isinstance(vars(part).get("layer_idx"), int)}


def _cut(value: Any, tokens: int, left: torch.Tensor) -> Any:
    """`value` for the tokens that are left, where it has something for each: `[1, tokens, ..]`, alone or in tuples."""
    if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[:2] == (1, tokens):
        return value[:, left]
    return tuple(_cut(part, tokens, left) for part in value) if type(value) is tuple else value
