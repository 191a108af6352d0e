"""Where a model runs and in which number format, when the user leaves it to us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longreach.errors import InputError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the processor. Raises InputError for a device that is not there."""
    import torch

    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"{name!r} is no device: write auto, cpu, cuda, cuda:0 or mps") from None
    there = {"cuda": torch.cuda.device_count() > (device.index or 0), "mps": mps, "cpu": True}
    if not there.get(device.type, False):
        raise InputError(f"the device {name!r} is not there: write auto or cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device computes in it natively, else float16 on MPS and float32 on a processor."""
    import torch

    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known; known: {', '.join(DTYPES)}")
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if has_native_bfloat16() else torch.float32


def has_native_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; without that it is several times slower than float32."""
    import torch

    told = torch.cpu.get_capabilities()
    return any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))
