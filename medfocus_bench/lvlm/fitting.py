"""Batches that fit: work that runs out of memory is tried again with half as many pictures at a time.

A batch changes how much is held at a time, and nothing of the result: 1e-5 at most, by the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

_Made = TypeVar("_Made")

_WORDS: Final = (
    "out of memory",  # CUDA and XPU (torch.OutOfMemoryError), MPS
    "can't allocate memory",  # the CPU's allocator
    "cannot allocate memory",
    "not enough memory",
    "invalid buffer size",  # MPS, for one tensor that is larger than a buffer may be
    "alloc_failed",  # cuBLAS, cuDNN
)
"""How torch says it in a RuntimeError, by device."""

_FITS: Final[WeakKeyDictionary[HuggingFaceLVLM, dict[str, int]]] = WeakKeyDictionary()
"""How many pictures fitted, by what was made of them: nothing runs out of memory twice."""


class OutOfMemoryError(InputError):
    """A single picture does not fit into the memory of the device."""


def fitting(lvlm: HuggingFaceLVLM, name: str, make: Callable[[], _Made]) -> _Made:
    """Call `make` with as many pictures at a time as fit: `lvlm.batch`, half of it, down to one.

    The next call for the same `name` begins with the number that fitted.

    Raises OutOfMemoryError, with the device's own figures, where one picture at a time is too many.
    """
    batch, known = lvlm.batch, _FITS.setdefault(lvlm, {})

    def with_batch(pictures: int) -> _Made:
        lvlm.batch = pictures
        if pictures < batch:
            known[name] = pictures
        return make()

    try:
        return halving(lvlm, name, min(batch, known.get(name, batch)), with_batch)[0]
    finally:
        lvlm.batch = batch


def halving(lvlm: object, name: str, pictures: int, make: Callable[[int], _Made]) -> tuple[_Made, int]:
    """Return `make(pictures)`, or that of half as many, and so on; and the number that fitted.

    Raises OutOfMemoryError, with the device's own figures, where one picture is too many.
    """
    device = getattr(lvlm, "device", "the device")
    while True:
        try:
            return make(pictures), pictures
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            figures = " ".join(str(error).split())[:300] or type(error).__name__
        # Here the error is gone, and with it the tensors that its traceback held.
        _free(device)
        if pictures == 1:
            raise OutOfMemoryError(
                f"{name} does not fit into the memory of {device}, one picture at a time ({figures}): "
                "try --dtype bfloat16, --quantise 4bit, or several GPUs (--device auto-map)"
            )
        pictures //= 2


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device (or this machine) had no memory for what was asked of it."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in _WORDS)
    )


def _free(device: Any) -> None:
    """Give back to the device what torch keeps of it in reserve."""
    kind = getattr(device, "type", "cpu")
    if kind in ("cuda", "mps", "xpu"):
        import torch

        getattr(torch, kind).empty_cache()
