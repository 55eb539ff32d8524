"""Radiographs as measures on a coarse grid of the model frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, FloatArray, Frame, UInt8Image

LEAST: Final = 0.02
"""Normalised intensity up to which a pixel has no mass."""

_QUANTILE: Final = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class GridImage:
    """An image at `size` x `size` over the model frame, intensities in [0, 1]."""

    values: FloatArray

    @property
    def inside(self) -> BoolArray:
        """The pixels that have mass."""
        return np.asarray(self.values > LEAST)

    @property
    def support(self) -> FloatArray:
        """The transported mass: the intensities, and zero outside of them."""
        return np.asarray(np.where(self.inside, self.values, 0.0))

    def cost_scale(self, target: GridImage) -> float:
        """The 90th percentile of the squared distances between the pixels with mass of the two.

        The paper's code divides the cost by it. Raises InputError where one of them has no such pixel, and
        where each has one, at the same place.
        """
        if not (self.inside.any() and target.inside.any()):
            size = len(target.values)
            raise InputError(
                f"the picture leaves nothing on a grid of {size} x {size}: it is black there, or too thin"
            )
        distances, numbers = _distance_counts(self.inside, target.inside)
        order = np.argsort(distances)
        scale = _weighted_quantile(distances[order], numbers[order], _QUANTILE)
        if not scale > 0:
            raise InputError("the picture is one bright point on black: it has no anatomy to carry over")
        return scale


def grid_image(image: UInt8Image, size: int) -> GridImage:
    """An image (height, width) in the model frame, normalised, and downsampled as the paper's code does it.

    Raises ValueError for an image of one grey level, which holds nothing to transport.
    """
    framed = framed_image(image).astype(np.float32)
    left, top, right, bottom = Frame(image.shape[1], image.shape[0]).content
    content = framed[top:bottom, left:right]
    if content.max() <= content.min():  # padding does not count as contrast
        raise ValueError("an image of one grey level has no anatomy")
    low, high = framed.min(), framed.max()
    small = ndimage.zoom((framed - low) / (high - low), size / len(framed), order=1)
    return GridImage(small.astype(np.float64))


def grid_mask(mask: BoolArray, size: int) -> BoolArray:
    """A mask (height, width) in the model frame at the pixel nearest to each cell, as the paper's code."""
    frame = Frame(mask.shape[1], mask.shape[0])
    square = mask.shape == (frame.size, frame.size)
    whole = mask if square else frame.embed(mask.astype(np.float64)) > 0.5
    return np.asarray(ndimage.zoom(whole.astype(np.float32), size / frame.size, order=0) > 0.5)


def framed_image(image: UInt8Image) -> UInt8Image:
    """An image (height, width) in the model frame, padded with zeros."""
    frame = Frame(image.shape[1], image.shape[0])
    if image.shape == (frame.size, frame.size):
        return image
    return np.asarray(np.clip(np.round(frame.embed(image.astype(np.float64))), 0, 255).astype(np.uint8))


def _distance_counts(first: BoolArray, second: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Every squared distance between two sets of pixels, and how many pairs have it.

    Counted by the offsets between them, a correlation, instead of pair by pair.
    """
    size = tuple(2 * side - 1 for side in first.shape)
    one, other = (np.fft.rfft2(mask.astype(np.float64), s=size) for mask in (first, second))
    pairs = np.round(np.fft.irfft2(other * np.conj(one), s=size))
    down, across = (np.fft.fftfreq(n, 1 / n) for n in size)
    squared: FloatArray = down[:, None] ** 2 + across[None, :] ** 2
    found = pairs > 0
    return np.round(squared[found]), pairs[found]


def _weighted_quantile(ordered: FloatArray, numbers: FloatArray, quantile: float) -> float:
    """The linear quantile, as numpy has it, of values in order that stand there several times each."""
    ends = np.cumsum(numbers)
    place = quantile * (ends[-1] - 1)
    below = int(np.floor(place))
    low, high = (
        ordered[np.searchsorted(ends, n, side="right")] for n in (below, min(below + 1, ends[-1] - 1))
    )
    return float(low + (high - low) * (place - below))
