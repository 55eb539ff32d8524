"""Average maps to a resolution that fits into a submission."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import FloatArray, area_weights
from medfocus_bench.submission.maps import as_stored

SIDE: Final = 64
"""Cells of the longer side; docs/submission.md has the figures. 2,000 maps of 64 x 64 take 16 MiB."""


def thinned(saliency: npt.NDArray[np.generic], side: int = SIDE) -> npt.NDArray[np.generic]:
    """A map whose longer side has at most `side` cells: float16, divided by its largest magnitude.

    Each cell is the mean over its area; one with a value that is not finite in it is not finite either. A
    smaller map is returned as it is. A map that is nearly flat, as one of RISE, is float32: see `as_stored`.
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
    return as_stored(means, "float16")


def _mean(values: npt.NDArray[np.generic], down: FloatArray, across: FloatArray) -> FloatArray:
    return np.asarray(down @ values.astype(np.float64) @ across.T)
