"""Average maps to a resolution that fits into a submission."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import FloatArray, area_weights

SIDE: Final = 64
"""Cells of the longer side; docs/submission.md has the figures. 2,000 maps of 64 x 64 take 16 MiB."""


_FLAT: Final = 0.25
"""A map whose values differ by less of the largest has too few levels in float16, which has 2,048 to it."""


def thinned(saliency: npt.NDArray[np.generic], side: int = SIDE) -> npt.NDArray[np.generic]:
    """A map whose longer side has at most `side` cells: float16, divided by its largest magnitude.

    Each cell is the mean over its area; one with a value that is not finite in it is not finite either. A
    smaller map is returned as it is. The division comes first: small gradients would vanish in
    float16. A map that is nearly flat, as one of RISE, is float32.
    """
    longest = max(saliency.shape)
    if longest <= side:
        return saliency
    rows, columns = (max(1, round(length * side / longest)) for length in saliency.shape)
    down, across = area_weights(saliency.shape[0], rows), area_weights(saliency.shape[1], columns)
    finite = np.isfinite(saliency)
    means = _mean(np.where(finite, saliency, 0), down, across)
    if not finite.all():
        for value in (-np.inf, np.inf, np.nan):
            affected = np.isnan(saliency) if np.isnan(value) else saliency == value
            means[_mean(affected, down, across) > 0] = value
    known = means[np.isfinite(means)]
    largest = float(np.abs(known).max(initial=0.0))
    if largest == 0:
        return means.astype(np.float16)
    flat = 0 < known.max() - known.min() < _FLAT * largest
    scaled: FloatArray = means / largest
    return scaled.astype(np.float32) if flat else scaled.astype(np.float16)


def _mean(values: npt.NDArray[np.generic], down: FloatArray, across: FloatArray) -> FloatArray:
    return np.asarray(down @ values.astype(np.float64) @ across.T)
