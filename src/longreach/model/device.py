"""Where a model runs and in which number format, when the user leaves it to us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from longreach.errors import InputError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")
KV_DTYPES = (*DTYPES, "int8", "int4")


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


def choose_dtype(name: str, device: torch.device, weight_bytes: int = 0) -> torch.dtype:
    """`auto` is bfloat16 on CUDA where it is native, float16 on MPS, and on a processor what is quicker there: bfloat16
    where it has matrix units for it, or vector instructions and weights (`weight_bytes` on disk) of more than `LARGE`,
    whose reading then is what takes the time; else float32."""
    import torch

    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known; known: {', '.join(DTYPES)}")
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    units = bfloat16_units()
    return torch.bfloat16 if units == "matrix" or (units == "vector" and weight_bytes > LARGE) else torch.float32


def choose_kv_dtype(name: str, weights: torch.dtype, plain: bool) -> torch.dtype:
    """How keys and values are kept beside `weights`, which are `plain` where somebody named their dtype or they are not
    on a processor. `auto` is as the weights; on a processor bfloat16 where it multiplies that, since a decoding step
    reads all of them. Raises InputError."""
    import torch

    from longreach.kv.coding import kept_as

    if name not in KV_DTYPES:
        raise InputError(f"kv_dtype {name!r} is not known; known: {', '.join(KV_DTYPES)}")
    if name != "auto":
        return kept_as(name)
    return torch.bfloat16 if not plain and weights == torch.float32 and bfloat16_units() != "none" else weights


LARGE = 2 << 30
"""Bytes of weights. SmolLM2-135M on AVX512-BF16 without AMX: float32 reads prompts 1.7 times as fast as bfloat16, and
decodes 1.2 times as fast."""


def bfloat16_units() -> Literal["matrix", "vector", "none"]:
    """What this processor multiplies bfloat16 with: matrix units (AMX, Arm), vector instructions, or nothing."""
    import torch

    told = torch.cpu.get_capabilities()
    if any(told.get(name, False) for name in ("amx_bf16", "arm_bf16")):
        return "matrix"
    return "vector" if any(told.get(name, False) for name in ("avx512_bf16", "bf16")) else "none"
