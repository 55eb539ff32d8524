"""Attributions at one sharpness: what a map or boxes become before anything is scored.

Methods answer on grids of 8 x 8 tokens, on pixels, or in boxes. Scored as they come, the sharpness of an
answer outweighs its place: the same 16 x 16 values score differently upsampled by nearest neighbours and by
bilinear weights, and the exact mask of a cause scores below its box. So every attribution is resampled to the
image's pixels in the model frame, padding cut off, and low-passed by one Gaussian. Both are linear and
separable, and together one pair of small matrices: one for the rows, one for the columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.geometry import (
    BoxUnion,
    FloatArray,
    Frame,
    MapFrame,
    bilinear_weights,
    interval_overlap,
)

SaliencyMap = npt.NDArray[np.float32]

SIGMA: Final = 10 / 224
"""Standard deviation of the Gaussian in sides of the model frame: 10 pixels of 224."""

_LEVELS: Final = 2.0**36
_KEPT: Final = 128
"""Matrices that a process keeps, of 400 kB at most for maps up to the model frame's resolution."""


def lowpassed(
    given: Attribution | npt.NDArray[np.generic], frame: Frame, sigma: float = SIGMA
) -> SaliencyMap:
    """An attribution on the image's pixels, low-passed: (content height, content width), within [-1, 1].

    A map (of an Attribution, or a 2-D array over the model frame) is resampled: bilinear, half-pixel centres,
    edges repeated; a finer one is low-passed by a triangle first. Its padding is cut off, and what is left is
    filtered by a Gaussian of `sigma` sides of the frame, edges repeated, cut at four standard deviations. Of
    boxes, which are in native pixels, it is the exact coverage of each pixel that is filtered.

    The result is divided by its largest magnitude, so that no map is lost in float32 for being small, and
    rounded to multiples of 2^-36: the sums of a plateau differ in their last bits, by 1e-15 or so, and would
    tell pixels apart that the attribution does not. The whole image as a box is flat, exactly.

    A map that is empty or not everywhere finite gives zeros, as do boxes that cover nothing.
    """
    left, top, right, bottom = frame.content
    if isinstance(given, Attribution) and given.boxes is not None:
        union = BoxUnion.of(frame.to_content(given.boxes))
        rows, columns = (
            _gaussian(cells, sigma * frame.size) @ interval_overlap(edges, cells).T
            for edges, cells in ((union.ys, bottom - top), (union.xs, right - left))
        )
        return _levelled(rows @ union.inside @ columns.T)
    saliency, covers = (given.saliency, given.frame) if isinstance(given, Attribution) else (given, "model")
    assert saliency is not None
    if saliency.size == 0 or not np.isfinite(saliency).all():
        return np.zeros((bottom - top, right - left), dtype=np.float32)
    rows = _weights(saliency.shape[0], frame.size, top, bottom, covers, sigma)
    columns = _weights(saliency.shape[1], frame.size, left, right, covers, sigma)
    return _levelled(rows @ saliency.astype(np.float64) @ columns.T)


@lru_cache(_KEPT)
def _weights(source: int, size: int, start: int, stop: int, covers: MapFrame, sigma: float) -> FloatArray:
    """Weights (stop - start, source) from a map's cells along one axis to the low-passed content pixels."""
    resampling = (
        bilinear_weights(source, size)[start:stop]
        if covers == "model"
        else bilinear_weights(source, stop - start)
    )
    weights = _gaussian(stop - start, sigma * size) @ resampling
    weights.setflags(write=False)
    return weights


@lru_cache(_KEPT)
def _gaussian(cells: int, sigma: float) -> FloatArray:
    """Weights (cells, cells) of a Gaussian over a line of cells, its ends repeated."""
    weights: FloatArray = ndimage.gaussian_filter1d(np.eye(cells), sigma, axis=0, mode="nearest")
    weights.setflags(write=False)
    return weights


def _levelled(values: FloatArray) -> SaliencyMap:
    scale = max(-values.min(), values.max())
    if scale > 0:
        values /= scale
        values *= _LEVELS
        np.rint(values, out=values)
    return values.astype(np.float32) * np.float32(1 / _LEVELS)
