"""Where a concept lies in an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medfocus_bench.geometry import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ConceptMask:
    """The pixels of a concept in an image of (height, width): `mask`, and its tight half-open `box` (4,)."""

    mask: BoolArray

    @property
    def box(self) -> FloatArray:
        """[x1, y1, x2, y2] in native pixels; without area where the mask is empty."""
        return tight_box(self.mask)

    def __bool__(self) -> bool:
        return bool(self.mask.any())


def tight_box(mask: BoolArray) -> FloatArray:
    """The half-open box [x1, y1, x2, y2] of a mask's pixels; zeros where it has none."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return np.zeros(4)
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float64)
