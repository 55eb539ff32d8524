"""Signs that a map lost something before it was stored: subnormals, few levels, a grid behind its pixels.

Each is a hint, never an error: a map of regions has few levels because it is meant to.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

_SUBNORMAL: Final = float(np.finfo(np.float16).smallest_normal)
"""Below 0.000061 float16 loses a digit with each halving, and below 0.00000003 all of them."""

_MUCH: Final = 0.1
"""The share of the pixels other than zero that makes subnormal values worth a word."""

_PIXELS_A_LEVEL: Final = 16
_ENOUGH_LEVELS: Final = 64
"""Ties of a map with more levels than these are rare enough, whatever its size: uint8 has 256."""

_SAMPLED: Final = 4096


def subnormal_share(saliency: npt.NDArray[np.generic]) -> float:
    """The share of the pixels other than zero that are subnormal in float16; 0 for a map of another type."""
    if saliency.dtype != np.float16:
        return 0.0
    sizes = np.abs(saliency[saliency != 0].astype(np.float32))
    return float(np.mean(sizes < _SUBNORMAL)) if sizes.size else 0.0


def levels(saliency: npt.NDArray[np.generic]) -> int | None:
    """The number of distinct values of a map; None for more than 64, which are enough."""
    step = max(1, saliency.size // _SAMPLED)
    for part in (saliency.ravel()[::step], saliency):
        if (found := len(np.unique(part))) > _ENOUGH_LEVELS:
            return None
    return found


def hidden_grid(saliency: npt.NDArray[np.generic]) -> tuple[int, int] | None:
    """The (rows, columns) of the grid of which a map repeats each cell, as upsampling by nearest does.

    A side with g cells changes its values at multiples of its length over g only, to a pixel, and at half of
    these at least, which a box or two of a mask do not. None where a side is of single pixels, and for a map
    that is constant along a side.
    """
    if min(saliency.shape) < 2:
        return None
    rows = _cells(saliency.shape[0], (saliency[1:] != saliency[:-1]).any(axis=1))
    columns = _cells(saliency.shape[1], (saliency[:, 1:] != saliency[:, :-1]).any(axis=0))
    return None if rows is None or columns is None else (rows, columns)


def _cells(length: int, changes: npt.NDArray[np.bool_]) -> int | None:
    """The number of equal parts of a line that changes at these of its length - 1 inner edges."""
    edges = np.flatnonzero(changes) + 1
    if len(edges) == 0 or np.diff(edges).min(initial=length) < 2:
        return None
    for cells in range(len(edges) + 1, min(2 * len(edges) + 1, length // 2) + 1):
        nearest = np.rint(edges * cells / length) * length / cells
        if (np.abs(edges - nearest) < 1).all():
            return cells
    return None


def doubts(saliency: npt.NDArray[np.generic]) -> Mapping[str, str]:
    """The signs that a map with several finite values shows, each with its figures.

    The keys are "subnormal", "grid" and "levels".
    """
    found: dict[str, str] = {}
    lost = subnormal_share(saliency)
    if lost >= _MUCH:
        found["subnormal"] = f"{lost:.0%} of its pixels"
    rows, columns = saliency.shape
    grid = hidden_grid(saliency)
    if grid is not None:
        found["grid"] = f"{grid[0]} x {grid[1]} cells in {rows} x {columns} pixels"
    few = levels(saliency)
    cells = prod(grid or saliency.shape)
    if few is not None and few * _PIXELS_A_LEVEL <= cells:
        found["levels"] = f"{few} levels of {cells:,} {'cells' if grid else 'pixels'}"
    return found
