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


def load(name: str) -> ModuleType:
    """A module of kernels; without a GPU, its kernels are for the interpreter. Skips where neither can be had."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: kernels cannot be run, not even interpreted")
    if torch.cuda.is_available():
        return importlib.import_module(name)
    # Triton decides when it is imported and when a kernel is defined; the setting is withdrawn so that nothing else
    # sees it.
    before = os.environ.get("TRITON_INTERPRET")
    if before != "1" and "triton" in sys.modules and name not in sys.modules and not _interpreting():
        pytest.skip("Triton was imported before it could be told to interpret")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        importlib.import_module("triton.experimental.gluon")  # a launch imports it, and it asks for the setting too
        module = importlib.import_module(name)
        _mend(importlib.import_module("triton.runtime.interpreter"))
        return module
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before


def _interpreting() -> bool:
    return type(sys.modules["triton"].language.standard.cdiv).__name__ == "InterpretedFunction"


def _mend(interpreter: ModuleType) -> None:
    """What the interpreter of Triton 3.6 lacks: it makes a loop's bound of an array of one element, which NumPy from
    2.4 on refuses; and it multiplies matrices of bfloat16 as if their bits were whole numbers."""
    patch = interpreter._patch_lang_tensor
    if getattr(patch, "mended", False):
        return

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

    builder.create_dot = lambda self, a, b, *rest: dot(self, wide(a), wide(b), *rest)
    mended.mended = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = mended


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def kernels() -> Callable[[str], ModuleType]:
    return load
