"""The evidence region of a sample, in the forms that scores need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from medfocus_bench.geometry import BoolArray, BoxUnion, FloatArray, Frame, clip_boxes


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The evidence region of one sample.

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
        native = clip_boxes(boxes, width, height)
        share = BoxUnion.of(native).area / (width * height)
        if share == 0:
            raise ValueError(f"{sample_id}: the evidence boxes cover nothing of the image")
        covered = frame.coverage(native)
        if not covered.any():
            covered[_centre_pixel(frame, native)] = 1.0
        return cls(sample_id, frame, native, covered >= min(0.5, covered.max()), share)


def _centre_pixel(frame: Frame, boxes: FloatArray) -> tuple[int, int]:
    """Row and column, in the content, of the centre of the largest of the native `boxes`."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    x1, y1, x2, y2 = frame.to_model(boxes)[areas.argmax()]
    left, top, right, bottom = frame.content
    return min(int((y1 + y2) / 2), bottom - 1) - top, min(int((x1 + x2) / 2), right - 1) - left
