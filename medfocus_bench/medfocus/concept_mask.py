"""Where a concept lies in an image."""

from __future__ import annotations

from dataclasses import dataclass

from medfocus_bench.geometry import BoolArray, FloatArray, tight_box


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
