"""Batches that fit: what runs out of memory is tried again with half as many pictures at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    import torch

    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

_Made = TypeVar("_Made")

_WORDS: Final = ("out of memory", "can't allocate memory", "cannot allocate memory")
"""How torch says it, whatever the device."""

_FITS: Final[WeakKeyDictionary[HuggingFaceLVLM, dict[str, int]]] = WeakKeyDictionary()
"""How many pictures fitted, by what was made of them: nothing runs out of memory twice."""


class OutOfMemoryError(InputError):
    """A single picture does not fit into the memory of the device."""


def fitting(lvlm: HuggingFaceLVLM, name: str, make: Callable[[], _Made]) -> _Made:
    """Call `make` with as many pictures at a time as fit: `lvlm.batch`, half of it, down to one.

    The next call for the same `name` begins with the number that fitted. What is made does not depend on it.

    Raises OutOfMemoryError, with the device's own figures, where one picture at a time is too many.
    """
    batch, known = lvlm.batch, _FITS.setdefault(lvlm, {})
    try:
        lvlm.batch = min(batch, known.get(name, batch))
        while True:
            try:
                return make()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                figures = " ".join(str(error).split())[:300]
            # Here the error is gone, and with it the tensors that its traceback held.
            _free(lvlm.device)
            if lvlm.batch == 1:
                raise OutOfMemoryError(
                    f"{name} does not fit into the memory of {lvlm.device}, one picture at a time: {figures}"
                )
            lvlm.batch = known[name] = lvlm.batch // 2
    finally:
        lvlm.batch = batch


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device (or this machine) had no memory for what was asked of it."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in _WORDS)
    )


def _free(device: torch.device) -> None:
    """Give what torch keeps in reserve back to the device."""
    import torch

    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).empty_cache()
