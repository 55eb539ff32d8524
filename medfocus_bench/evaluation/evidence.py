"""The evidence region of a sample, in the forms that scores need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import BoolArray, BoxUnion, FloatArray, Frame, clip_boxes

_KEPT: Final = 1024
"""Regions that a process keeps, of 50 kB at most each: LVLMs, modes and methods share them."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The evidence region of one sample; its arrays are shared, and read-only.

    Args:
        boxes: (n, 4), native frame, cut to the image.
        pixels: (content height, content width), the model-frame pixels that are at least half covered; of a
            region too small for that, the most covered ones; of one too small even to measure, the pixel that
            holds the centre of the largest box.
        share: the exact share of the image's area.

    """

    sample_id: str
    frame: Frame
    boxes: FloatArray
    pixels: BoolArray
    share: float

    @classmethod
    def of(cls, sample_id: str, width: int, height: int, boxes: npt.ArrayLike) -> Evidence:
        """Raises ValueError for boxes that cover nothing of the image."""
        frame = Frame(width, height)
        found = _region(frame, clip_boxes(boxes, width, height).tobytes())
        if found is None:
            raise ValueError(f"{sample_id}: the evidence boxes cover nothing of the image")
        return cls(sample_id, frame, *found)


@lru_cache(_KEPT)
def _region(frame: Frame, native: bytes) -> tuple[FloatArray, BoolArray, float] | None:
    """Boxes, pixels and share of native boxes, given as bytes; None where they cover nothing."""
    boxes = np.frombuffer(native).reshape(-1, 4)
    share = BoxUnion.of(boxes).area / (frame.width * frame.height)
    if share == 0:
        return None
    covered = frame.coverage(boxes)
    if not covered.any():
        covered[_centre_pixel(frame, boxes)] = 1.0
    pixels = covered >= min(0.5, covered.max())
    pixels.setflags(write=False)
    return boxes, pixels, share


def _centre_pixel(frame: Frame, boxes: FloatArray) -> tuple[int, int]:
    """Row and column, in the content, of the centre of the largest of the native `boxes`."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    x1, y1, x2, y2 = frame.to_model(boxes)[areas.argmax()]
    left, top, right, bottom = frame.content
    return min(int((y1 + y2) / 2), bottom - 1) - top, min(int((x1 + x2) / 2), right - 1) - left
