"""The evidence region of a sample, in the forms that scores need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medfocus_bench.data.sample import Sample
from medfocus_bench.geometry import (
    BoolArray,
    BoxUnion,
    FloatArray,
    Frame,
    area_weights,
    clip_boxes,
    tight_box,
)

RIM: Final = 1 / 16
"""Of the model frame's side: this near to the cause, no pixel counts. 14 pixels of 224, half a token."""

_KEPT: Final = 1024
"""Regions that a process keeps, of 100 kB at most each: LVLMs, modes and methods share them."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Evidence:
    """The evidence of a region; equal regions share one object, whose arrays are read-only.

    Args:
        frame: of the image.
        boxes: (n, 4), native frame, cut to the image.
        union: of the boxes, in content pixels.
        share: of the image's area that the boxes cover, exact.
        pixels: (content height, content width), the positive ones: the model-frame pixels of which the mask
            covers at least half; of a mask too small for that, the most covered ones; of boxes too small even
            to measure, the pixel that holds the centre of the largest.
        counted: of the same shape, the pixels that count: the positive and the negative ones. Left out are
            those of the boxes outside the mask, and those within the rim of a positive one: whether they
            belong to the cause is a question of drawing, not of the explanation.

    """

    frame: Frame
    boxes: FloatArray
    union: BoxUnion
    share: float
    pixels: BoolArray
    counted: BoolArray

    @classmethod
    def of(
        cls,
        width: int,
        height: int,
        boxes: npt.ArrayLike,
        mask: BoolArray | None = None,
        *,
        rim: float = RIM,
        name: str = "",
    ) -> Evidence:
        """The evidence of native `boxes`, and of the exact native `mask` (height, width) where it is known.

        Without it, the boxes are the mask. `rim` is in sides of the model frame. Raises ValueError, with the
        `name` of the sample, for boxes or a mask that cover nothing of the image.
        """
        native = clip_boxes(boxes, width, height).tobytes()
        exact = None if mask is None else np.packbits(mask).tobytes()
        found = _evidence(Frame(width, height), native, exact, rim)
        if found is None:
            raise ValueError(f"{name}: the evidence covers nothing of the image".removeprefix(": "))
        return found


def evidence_of(sample: Sample, rim: float = RIM) -> Evidence:
    """The evidence of a sample: its exact mask where known, else its boxes. Raises ValueError without any."""
    mask = sample.exact_mask
    return Evidence.of(sample.width, sample.height, sample.boxes, mask, rim=rim, name=sample.sample_id)


@lru_cache(_KEPT)
def _evidence(frame: Frame, native: bytes, exact: bytes | None, rim: float) -> Evidence | None:
    boxes = np.frombuffer(native).reshape(-1, 4)
    union = BoxUnion.of(frame.to_content(boxes))
    share = BoxUnion.of(boxes).area / (frame.width * frame.height)
    if share == 0:
        return None
    boxed = union.coverage(*frame.content_size)
    if exact is None:
        covered = boxed.copy()
        if not covered.any():
            covered[_centre_pixel(frame, boxes)] = 1.0
    else:
        covered = _covered_by(frame, np.unpackbits(np.frombuffer(exact, np.uint8)))
        if not covered.any():
            return None
    pixels = covered >= min(0.5, covered.max())
    counted = ~(_within(pixels, rim * frame.size) | (boxed >= 0.5)) | pixels
    for array in (pixels, counted):
        array.setflags(write=False)
    return Evidence(frame, boxes, union, share, pixels, counted)


def _covered_by(frame: Frame, bits: npt.NDArray[np.uint8]) -> FloatArray:
    """Share of each content pixel that a native mask, given row by row, covers."""
    mask = bits[: frame.width * frame.height].reshape(frame.height, frame.width)
    x1, y1, x2, y2 = tight_box(mask.astype(np.bool_)).astype(int)
    width, height = frame.content_size
    rows, columns = area_weights(frame.height, height)[:, y1:y2], area_weights(frame.width, width)[:, x1:x2]
    return np.asarray(np.round(rows @ mask[y1:y2, x1:x2].astype(np.float64) @ columns.T, 12))


def _within(pixels: BoolArray, reach: float) -> BoolArray:
    """The pixels whose centre is within `reach` of that of one of `pixels`, which are read with their rim."""
    height, width = pixels.shape
    x1, y1, x2, y2 = tight_box(pixels).astype(int)
    margin = int(np.ceil(reach))
    around = np.s_[max(y1 - margin, 0) : y2 + margin, max(x1 - margin, 0) : x2 + margin]
    near = np.zeros((height, width), dtype=np.bool_)
    near[around] = ndimage.distance_transform_edt(~pixels[around]) <= reach
    return near


def _centre_pixel(frame: Frame, boxes: FloatArray) -> tuple[int, int]:
    """Row and column, in the content, of the centre of the largest of the native `boxes`."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    x1, y1, x2, y2 = frame.to_content(boxes)[areas.argmax()]
    width, height = frame.content_size
    return min(int((y1 + y2) / 2), height - 1), min(int((x1 + x2) / 2), width - 1)
