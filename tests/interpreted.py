"""Triton's kernels, on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch

KERNELS = {
    **{name: f"longreach.attention.triton_{name}" for name in ("decode", "prefill", "write", "bounds", "select")},
    "rows": "longreach.model.fast.triton_rows",
}


def _import() -> str | None:
    """Import the kernels; why they cannot be run, or None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: kernels cannot be run, not even interpreted"
    if torch.cuda.is_available():
        return None
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton was imported before it could be told to interpret: run these tests by themselves"
    # Triton decides when it is imported and when a kernel is defined; the setting is withdrawn so that nothing else
    # sees it. Now, and not when a test asks: tests before it may import Triton, by way of PyTorch's compiler.
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        importlib.import_module("triton.experimental.gluon")  # a launch imports it, and it asks for the setting too
        for module in KERNELS.values():
            importlib.import_module(module)
        _mend(importlib.import_module("triton.runtime.interpreter"))
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before
    return None


def _mend(interpreter: ModuleType) -> None:
    """What the interpreter of Triton 3.6 lacks: it makes a loop's bound of an array of one element, which NumPy from
    2.4 on refuses; it multiplies matrices of bfloat16 as if their bits were whole numbers, and makes such bits of
    these; and it cuts float32 off to bfloat16, which a GPU rounds to the nearest."""
    patch = interpreter._patch_lang_tensor

    def mended(tensor: type, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    builder = interpreter.InterpreterBuilder
    dot = builder.create_dot

    def wide(operand: Any) -> Any:
        if operand.dtype.scalar.name != "bf16":
            return operand
        data = (operand.data.astype(numpy.uint32) << 16).view(numpy.float32)
        return interpreter.TensorHandle(data, interpreter.tl.float32)

    cast = builder.cast_impl

    def nearest(self: Any, source: Any, to: Any) -> Any:
        if to.scalar.name != "bf16" or source.dtype.scalar.name == "bf16":
            return cast(self, source, to)
        rounded = torch.from_numpy(numpy.ascontiguousarray(source.data, numpy.float32)).bfloat16()
        return interpreter.TensorHandle(rounded.view(torch.uint16).numpy(), to.scalar)

    builder.cast_impl = nearest
    builder.create_dot = lambda self, a, b, *rest: dot(self, wide(a), wide(b), *rest)
    interpreter._patch_lang_tensor = mended


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def kernels() -> Callable[[str], ModuleType]:
    """The module of some kernels, by their name in `KERNELS`."""
    if CANNOT:
        pytest.skip(CANNOT)
    return lambda name: importlib.import_module(KERNELS[name])


CANNOT = _import()
