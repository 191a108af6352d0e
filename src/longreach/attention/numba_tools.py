"""What kernels compiled by Numba need beside its language: memory by its address, one counter for several threads,
PyTorch's own threads to run on, and a quick exponential.

Threads of Numba's own would wait for work on the processors that PyTorch's threads keep busy, so its kernels run on
those. PyTorch gives them to nobody, but the OpenMP that it is linked to does, under a name and a signature that every
compiled program relies on.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Run = Callable[[int, int, int], None]
"""`run(kernel, data, threads)`: every thread calls the C function at address `kernel` with the address `data`, once;
returns when all did. There may be fewer threads than asked for."""


FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}
"""Liberties with the order of operations; what is not a number stays none."""
OPTIONS: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy", "forceinline": True, "no_cpython_wrapper": True}
"""Of functions that become part of a kernel."""


@cache
def own_threads() -> Run | None:
    """PyTorch's threads; None where its OpenMP is not GNU's, or cannot be found."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    found = sorted({line.split(maxsplit=5)[5] for line in maps.splitlines() if "libgomp" in line})
    try:
        library = ctypes.CDLL(min(found, key=lambda path: "torch" not in path))
        parallel = library.GOMP_parallel
    except (ValueError, OSError, AttributeError):
        return None
    parallel.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    parallel.restype = None
    return lambda kernel, data, threads: parallel(kernel, data, threads, 0)


@intrinsic
def pointer(context: Any, address: Any) -> Any:
    """The memory at an address."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def count(context: Any, address: Any) -> Any:
    """Add one to the number (int64) at an address, and get what it was: each number once, whoever asks. What a thread
    wrote before, those see that get a number after."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        number = builder.inttoptr(given[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", number, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(types.int64), generate


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Let the line of memory at an address come nearer; it need not be there."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        number = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        options = [ir.Constant(number, option) for option in (0, 3, 1)]  # to be read, kept near, data
        builder.call(function, [builder.inttoptr(given[0], cgutils.voidptr_t), *options])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def read(context: Any, address: Any, index: Any, like: Any) -> Any:
    """Number `index` of those at an address, as float32: they are float32 where `like` is, bfloat16 where it is of
    uint16, whole numbers where it is of int8, and the lower four bits of bytes where it is of uint8."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        own, wide = context.get_value_type(like), ir.IntType(32)
        loaded = builder.load(builder.gep(builder.inttoptr(given[0], own.as_pointer()), [given[1]]))
        if like == types.float32:
            return loaded
        if like == types.int8:
            return builder.sitofp(loaded, ir.FloatType())
        if like == types.uint8:
            return builder.uitofp(builder.and_(loaded, ir.Constant(own, 15)), ir.FloatType())
        return builder.bitcast(builder.shl(builder.zext(loaded, wide), ir.Constant(wide, 16)), ir.FloatType())

    return types.float32(types.int64, types.int64, like), generate


@intrinsic
def byte(context: Any, address: Any, index: Any) -> Any:
    """Byte `index` of those at an address, as float32."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        own = ir.IntType(8)
        loaded = builder.load(builder.gep(builder.inttoptr(given[0], own.as_pointer()), [given[1]]))
        return builder.uitofp(loaded, ir.FloatType())

    return types.float32(types.int64, types.int64), generate


@intrinsic
def write(context: Any, address: Any, index: Any, number: Any, like: Any) -> Any:
    """Put a float32 where `read` finds it; the nearest bfloat16 or whole number, the even one of two, where it is such,
    and 0 for what is no number where it is whole."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        own, wide = context.get_value_type(like), ir.IntType(32)
        number = given[2]
        if like == types.int8:
            near, whole = "llvm.rint.f32", "llvm.fptosi.sat.i8.f32"
            for name, result in ((near, ir.FloatType()), (whole, own)):
                shape = ir.FunctionType(result, [ir.FloatType()])
                number = builder.call(cgutils.get_or_insert_function(builder.module, shape, name), [number])
        elif like != types.float32:
            bits = builder.bitcast(number, wide)
            odd = builder.and_(builder.lshr(bits, ir.Constant(wide, 16)), ir.Constant(wide, 1))
            rounded = builder.add(builder.add(bits, ir.Constant(wide, 0x7FFF)), odd)
            nearest = builder.trunc(builder.lshr(rounded, ir.Constant(wide, 16)), own)
            number = builder.select(builder.fcmp_unordered("uno", number, number), ir.Constant(own, 0x7FC0), nearest)
        builder.store(number, builder.gep(builder.inttoptr(given[0], own.as_pointer()), [given[1]]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, like), generate


@intrinsic
def power_of_two(context: Any, exponent: Any) -> Any:
    """2 to the power of a whole number (int32) from -126 to 127."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        wide = ir.IntType(32)
        raised = builder.add(given[0], ir.Constant(wide, 127))
        return builder.bitcast(builder.shl(raised, ir.Constant(wide, 23)), ir.FloatType())

    return types.float32(types.int32), generate


@njit(**OPTIONS)
def exp(x: Any) -> Any:
    """e to the power of `x <= 0`, to 7 digits: 2 to the whole part by its bits, the rest by a polynomial."""
    power = max(x * np.float32(1 / math.log(2)), np.float32(-126))
    whole = np.floor(power)
    rest = power - whole
    near = np.float32(1.8775767e-3)
    near = near * rest + np.float32(8.9893397e-3)
    near = near * rest + np.float32(5.5826318e-2)
    near = near * rest + np.float32(2.4015361e-1)
    near = near * rest + np.float32(6.9315308e-1)
    near = near * rest + np.float32(9.9999994e-1)
    return near * power_of_two(np.int32(whole))
