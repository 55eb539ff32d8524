"""A picture and its region in the square that a diffusion model draws in, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from medfocus_bench.geometry import BoolArray, Frame, UInt8Image


@dataclass(frozen=True, slots=True, eq=False)
class FramedPicture:
    """A picture in its model frame: `grey` and `region`, both (size, size).

    Padding is black and never part of the region. The region is every pixel of the frame that shows
    anything of a native pixel to be redrawn, so that what comes back covers all of them.
    """

    frame: Frame
    grey: UInt8Image
    region: BoolArray

    @classmethod
    def of(cls, image: UInt8Image, region: BoolArray, size: int) -> Self:
        """`image` (height, width) or (height, width, 3) and `region` (height, width), native."""
        height, width = image.shape[:2]
        frame = Frame(width, height, size)
        left, top, right, bottom = frame.content
        grey, framed = np.zeros((size, size), np.uint8), np.zeros((size, size), np.bool_)
        picture = Image.fromarray(image).convert("L")
        resized = picture.resize(frame.content_size, Image.Resampling.BICUBIC)
        grey[top:bottom, left:right] = np.asarray(resized)
        framed[top:bottom, left:right] = _touched(region, bottom - top, right - left)
        return cls(frame, grey, framed)

    def native(self, drawn: UInt8Image, like: UInt8Image) -> UInt8Image:
        """A drawn frame (size, size) as a picture of the shape of `like`, the native one: bicubic."""
        left, top, right, bottom = self.frame.content
        shown = Image.fromarray(drawn[top:bottom, left:right])
        grey = np.asarray(shown.resize((self.frame.width, self.frame.height), Image.Resampling.BICUBIC))
        return grey if like.ndim == 2 else np.repeat(grey[:, :, None], like.shape[2], axis=2)


def _touched(region: BoolArray, rows: int, columns: int) -> BoolArray:
    """Which cells of a grid (rows, columns) over the region's picture share area with the region."""
    height, width = region.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = region.cumsum(0).cumsum(1)
    top, bottom = _reach(height, rows)
    left, right = _reach(width, columns)
    below, above = sums[bottom], sums[top]
    return np.asarray(below[:, right] - below[:, left] - above[:, right] + above[:, left] > 0)


def _reach(length: int, cells: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First and one past the last of the `length` pixels that each of `cells` equal cells shares."""
    edges = np.arange(cells + 1) * length
    return edges[:-1] // cells, -(-edges[1:] // cells)
