"""Smooth pictures: a hidden region continued from what surrounds it, and what a blur leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from medfocus_bench.geometry import BoolArray

Grey = npt.NDArray[np.float32]

_COARSEST: Final = 32
_COARSE_SWEEPS: Final = 400
_SWEEPS: Final = 12
_FINE_SWEEPS: Final = 4
_FINE: Final = 1_000_000
"""Cells from which on a level is swept less: it starts from a good coarser one."""


def continue_smoothly(image: Grey, hidden: BoolArray) -> Grey:
    """The picture (height, width) with `hidden` filled by a harmonic continuation of the rest, about.

    Laplace's equation with the rest as boundary, from a grid of at most 32 cells a side up: each finer level
    starts from the coarser one and is relaxed a few times. Linear in the number of pixels. A picture of which
    all is hidden becomes its mean.
    """
    if not hidden.any():
        return image
    if hidden.all():
        return np.full_like(image, image.mean())
    rows, columns = around(hidden, lambda extent: max(16, extent // 8))
    filled = image.copy()
    filled[rows, columns] = _filled(image[rows, columns], hidden[rows, columns])
    return filled


def around(region: BoolArray, margin: Callable[[int], int]) -> tuple[slice, slice]:
    """The rows and columns of a region, widened within the picture by a margin that goes by its extent."""
    slices = []
    for axis in (1, 0):
        found = np.flatnonzero(region.any(axis))
        more = margin(int(found[-1] - found[0]))
        slices.append(slice(max(0, found[0] - more), found[-1] + 1 + more))
    return slices[0], slices[1]


def _filled(image: Grey, hidden: BoolArray) -> Grey:
    if max(image.shape) <= _COARSEST:
        nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
        return _relaxed(image[tuple(nearest)], hidden, _COARSE_SWEEPS)
    coarse_image, coarse_hidden = _halved(image, hidden)
    coarse = _filled(coarse_image, coarse_hidden)
    height, width = image.shape
    start = _resized(coarse, (height + height % 2, width + width % 2))[:height, :width]
    sweeps = _SWEEPS if image.size < _FINE else _FINE_SWEEPS
    return _relaxed(np.where(hidden, start, image), hidden, sweeps)


def _halved(image: Grey, hidden: BoolArray) -> tuple[Grey, BoolArray]:
    """Means of what is seen in blocks of 2 x 2; a block of which nothing is seen is hidden."""
    height, width = image.shape
    odd = ((0, height % 2), (0, width % 2))
    seen = np.pad((~hidden).astype(np.float32), odd)
    blocks = (seen.shape[0] // 2, 2, seen.shape[1] // 2, 2)
    weights = seen.reshape(blocks).sum((1, 3))
    sums = (np.pad(image, odd) * seen).reshape(blocks).sum((1, 3))
    return sums / np.maximum(weights, 1), weights == 0


def _relaxed(image: Grey, hidden: BoolArray, sweeps: int) -> Grey:
    """Each hidden pixel becomes the mean of its four neighbours, `sweeps` times."""
    for _ in range(sweeps):
        around = np.pad(image, 1, mode="edge")
        mean = around[:-2, 1:-1] + around[2:, 1:-1]
        mean += around[1:-1, :-2]
        mean += around[1:-1, 2:]
        mean *= 0.25
        image = np.where(hidden, mean, image)
    return image


def low_pass(image: Grey, sigma: float) -> Grey:
    """The picture (height, width) blurred by a Gaussian of `sigma` pixels, edges repeated.

    A wide one is computed on a coarser grid, which loses nothing that the blur would keep.
    """
    factor = max(1, int(sigma / 3))
    if factor == 1:
        return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest"), dtype=np.float32)
    rows, columns = (max(1, round(length / factor)) for length in image.shape)
    small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))
    return _resized(ndimage.gaussian_filter(small, sigma / factor, mode="nearest"), image.shape)


def _resized(image: Grey, shape: tuple[int, ...]) -> Grey:
    """Bilinear, half-pixel centres, in float32."""
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
