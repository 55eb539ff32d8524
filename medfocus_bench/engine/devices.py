"""Devices: which there are, and whether weights can be loaded onto one."""

from __future__ import annotations

import re
from typing import Final

from medfocus_bench.errors import InputError, require

AUTO: Final = "auto"
"""The best device of a machine: a GPU, or the CPU; as a type of weights, the best for the device."""

DTYPES: Final = ("float32", "bfloat16", "float16")

SPREAD: Final = "auto-map"
"""All GPUs that a process sees, over which the library accelerate spreads the weights of one LVLM."""

QUANTISATIONS: Final = ("8bit", "4bit")


def best_device() -> str:
    """The first that there is of cuda, xpu, mps and cpu."""
    try:
        import torch
    except ImportError:
        return "cpu"
    kinds = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    return next((name for name, kind in kinds.items() if kind.is_available()), "cpu")


def named_device(device: str) -> str:
    """The device itself, the best one of this machine for `auto`."""
    return best_device() if device == AUTO else device


def best_dtype(device: str) -> str:
    """The type of weights for a device: bfloat16 on a GPU that computes in it, float32 anywhere else.

    So on the CPU and on MPS, and on GPUs of before Ampere: float16 ends at 65,504, which the hidden states of
    real models exceed. A GPU that this machine does not have, as where it only hands out the work, is taken
    for one with bfloat16.
    """
    kind, _, number = (best_device() if device in (AUTO, SPREAD) else device).partition(":")
    if kind not in ("cuda", "xpu"):
        return "float32"
    import torch

    gpus = getattr(torch, kind)
    if not gpus.is_available():
        return "bfloat16"
    with gpus.device(int(number or 0)):
        return "bfloat16" if gpus.is_bf16_supported(including_emulation=False) else "float32"


def check_device(device: str, quantise: str | None = None) -> None:
    """Raise InputError for a device that is unknown or not there, and for a library that is missing."""
    reason = unusable(device, quantise)
    if reason is not None:
        raise InputError(f"--device {device}: {reason}")


def unusable(device: str, quantise: str | None = None) -> str | None:
    """Why this machine cannot load weights onto a device, with the way out; None where it can.

    Raises InputError for an unknown quantisation, and MissingExtraError for a library that is missing.
    """
    try:
        import torch
    except ImportError:
        return None  # loading a model says which extra is missing
    if quantise is not None and quantise not in QUANTISATIONS:
        raise InputError(f"--quantise {quantise}: unknown; give one of {', '.join(QUANTISATIONS)}")
    libraries = ["accelerate"] if quantise or device == SPREAD else []
    for library in [*libraries, *(["bitsandbytes"] if quantise else [])]:
        require(library)
    way_out = "give cpu, or auto, or cuda, cuda:NUMBER or mps on a machine with such a GPU"
    if device == AUTO:
        return None
    if device == SPREAD:
        return None if best_device() in ("cuda", "xpu") else f"this machine has no GPU; {way_out}"
    if not re.fullmatch(r"(cpu|mps|(cuda|xpu)(:\d+)?)", device):
        return f"no such kind of device; {way_out}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = "this machine has no MPS" if device == "mps" else str(error).splitlines()[0].rstrip(".")
        return f"{said}; {way_out}"
    return None
