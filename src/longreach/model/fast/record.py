"""One run of a model, written down as the list of PyTorch operations it was made of.

The recording stands between the model's code and PyTorch (`TorchFunctionMode`), so that it sees `linear`, `view` or
`silu` as the code calls them, of whatever family the code is. What it cannot see through is a decision made by looking
at numbers; a module that makes one is recorded as one opaque call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from longreach.model.fast.attending import attending
from longreach.model.fast.norms import Norm


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor among the arguments of a call: the `output`-th that call number `call` returned (-1: an input)."""

    call: int
    output: int


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor or a module that was there before: a weight, a buffer, the layer that attends."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclass(slots=True)
class Call:
    """`function(*args, **kwargs)`, its tensors as `Ref` or `Constant`; `outputs` counts the tensors it gave, and
    `single` tells one tensor from a tuple of one."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: int
    single: bool


@dataclass
class Recording:
    """The calls of one run in their order, and where its result came from."""

    calls: list[Call] = field(default_factory=list)
    result: Ref | Constant | None = None


class Untraceable(Exception):
    """The code looked at numbers, while `module` ran, to decide what to compute."""

    def __init__(self, module: nn.Module | None, what: str) -> None:
        super().__init__(f"{what} in {type(module).__name__}")
        self.module = module


def attention(*args: Any, **kwargs: Any) -> Any:
    """Stands in the recording where a layer attends; whoever runs it puts a function of their own in its place."""
    raise NotImplementedError


_LOOKS = {
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "__iter__",
    "__contains__",
    "item",
    "tolist",
    "numpy",
    "equal",
}
_LOOKS |= {"allclose", "nonzero", "unique"}
_WRITES = {"__setitem__", "__set__"}  # and give nothing that could be followed
_MAY_DO_NOTHING = {"to", "float", "contiguous", "dropout", "type_as", "reshape", "view"}


class Recorder(TorchFunctionMode):
    """Writes down every PyTorch function that is called while it is entered."""

    def __init__(
        self, inputs: list[Tensor], constants: set[int], opaque: set[nn.Module], norms: Mapping[nn.Module, Norm]
    ) -> None:
        super().__init__()
        self.recording = Recording()
        self.opaque = opaque
        self.norms = norms
        self.modules: list[nn.Module] = []
        self._constants = constants
        self._known = {id(tensor): Ref(-1, at) for at, tensor in enumerate(inputs)}
        self._alive: list[Any] = list(inputs)  # an id is only an id while its owner lives

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LOOKS:
            raise Untraceable(self.modules[-1] if self.modules else None, name)
        result = func(*args, **(kwargs or {}))
        idle = name in _MAY_DO_NOTHING and args and result is args[0]
        if not idle:
            self.note(func, args, kwargs or {}, result)
        return result

    def note(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Write one call down, if it gave tensors."""
        single = isinstance(result, Tensor)
        tensors = [result] if single else list(result) if isinstance(result, tuple | list) else []
        if not tensors or not all(isinstance(each, Tensor) for each in tensors):
            if (name := getattr(function, "__name__", "")) in _WRITES:
                raise Untraceable(self.modules[-1] if self.modules else None, name)
            return
        at = len(self.recording.calls)
        shown = self._shown(args), {key: self._shown(value) for key, value in kwargs.items()}
        self.recording.calls.append(Call(function, *shown, len(tensors), single))
        for place, tensor in enumerate(tensors):
            self._known[id(tensor)] = Ref(at, place)
            self._alive.append(tensor)

    def end(self, result: Tensor) -> None:
        """Say which tensor is the result of the run."""
        self.recording.result = self._shown(result)

    def _shown(self, value: Any) -> Any:
        """`value` with references in place of its tensors."""
        if isinstance(value, Tensor):
            if (ref := self._known.get(id(value))) is not None:
                return ref
            if id(value) not in self._constants:
                raise Untraceable(self.modules[-1] if self.modules else None, "a tensor of unknown origin")
            return Constant(value)
        if isinstance(value, nn.Module):
            return Constant(value)
        if isinstance(value, tuple | list):
            return type(value)(self._shown(each) for each in value)
        if isinstance(value, dict):
            return {key: self._shown(each) for key, each in value.items()}
        if isinstance(value, slice):
            return slice(self._shown(value.start), self._shown(value.stop), self._shown(value.step))
        return value


def record(
    model: nn.Module,
    ids: Tensor,
    positions: Tensor,
    rows: Tensor,
    opaque: set[nn.Module],
    norms: Mapping[nn.Module, Norm],
) -> Recording:
    """What `model` does to compute the logits of `rows` of the tokens `ids`, `[1, T]`, each at its position.

    Modules in `opaque` are recorded as one call each, `norms` as PyTorch's own operation. Raises Untraceable.
    """
    there = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    there |= {id(norm.weight) for norm in norms.values()}
    recorder = Recorder([ids, positions, rows], there, opaque, norms)

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        with torch._C.DisableTorchFunction():
            result = query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        recorder.note(attention, (module, query, key, value, mask), kwargs, result)
        return result, None

    with attending(model, attend), _followed(model, recorder), torch.inference_mode(), recorder:
        done = model(input_ids=ids, position_ids=positions, logits_to_keep=rows, use_cache=False)
        recorder.end(done.logits)
    return recorder.recording


@contextlib.contextmanager
def _followed(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Tell the recorder which module runs, and let opaque ones run unseen."""

    def follow(module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            if module in recorder.opaque:
                with torch._C.DisableTorchFunction():
                    result = forward(*args, **kwargs)
                recorder.note(module, args, kwargs, result)
                return result
            if norm := recorder.norms.get(module):
                return torch.rms_norm(args[0], norm.weight.shape, norm.weight, norm.eps)
            recorder.modules.append(module)
            try:
                return forward(*args, **kwargs)
            finally:
                recorder.modules.pop()

        return run

    modules = [module for module in model.modules() if "forward" not in vars(module)]
    for module in modules:
        vars(module)["forward"] = follow(module)
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]
