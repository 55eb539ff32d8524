"""From a saliency map to boxes, as the paper does it: normalise, threshold, label, drop the small, rank.

For the `paper` protocol alone. `standard` scores the pixels of maps: boxes around components reward noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medfocus_bench.geometry import BoolArray

QUANTILE: Final = 0.9
"""Pixels at or above this quantile of the non-zero values are selected."""

MIN_AREA: Final = 16
"""Components with fewer pixels are dropped."""

MAX_BOXES: Final = 10
"""Boxes kept, by mean saliency."""

_NEIGHBOURS = {4: ndimage.generate_binary_structure(2, 1), 8: ndimage.generate_binary_structure(2, 2)}
_EPSILON = np.float32(1e-8)


@dataclass(frozen=True, slots=True)
class Region:
    """A connected part of a map above its threshold.

    `box` is in the map's own pixels, its far ends included. `score` is the mean of the normalised saliency
    over the part's `area` pixels.
    """

    box: tuple[int, int, int, int]
    score: float
    area: int


def map_to_boxes(
    saliency: npt.ArrayLike,
    *,
    quantile: float = QUANTILE,
    min_area: int = MIN_AREA,
    max_boxes: int = MAX_BOXES,
    connectivity: Literal[4, 8] = 8,
    remove_zeros: bool = True,
) -> list[Region]:
    """The regions of a 2-D map, best first: what the released code of the paper computes, bit for bit.

    The map is min-max normalised in float32; pixels at or above `quantile` of the normalised values (of the
    non-zero ones when `remove_zeros`) are selected and joined to `connectivity`-connected components; those
    under `min_area` pixels are dropped; the rest is ranked by mean saliency, ties in scan order, and cut to
    `max_boxes`.

    Maps that explain nothing give whatever that arithmetic makes of them. A constant map is the whole image.
    With one infinite value everything else is 0 and that value NaN, so the box is that of all other pixels:
    the whole image, unless the infinite ones fill its edge. A NaN or a negative infinity anywhere turns all
    into NaN, and nothing is selected.

    Raises ValueError for a map that is not 2-D.
    """
    values = np.asarray(saliency)
    if values.ndim != 2:
        raise ValueError(f"a saliency map is 2-D, not of shape {values.shape}")
    if values.size == 0:
        return []
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        above = values - values.min()
        normalised = above / (above.max() + _EPSILON)
    # A comparison with NaN is false: such a pixel is neither counted nor selected.
    counted = normalised[normalised > 0] if remove_zeros else normalised
    cut = np.quantile(counted, quantile) if counted.size else np.float32(0)
    regions = _components(normalised, normalised >= cut, min_area, connectivity)
    return sorted(regions, key=lambda region: -region.score)[:max_boxes]


def _components(
    values: npt.NDArray[np.floating], selected: BoolArray, min_area: int, connectivity: Literal[4, 8]
) -> list[Region]:
    """Each large enough component, in scan order."""
    labels, _ = ndimage.label(selected, structure=_NEIGHBOURS[connectivity])
    flat = np.flatnonzero(selected)
    owner = labels.ravel()[flat]
    areas = np.bincount(owner)
    large = np.flatnonzero(areas >= max(min_area, 1))
    if large.size == 0:
        return []
    sums = np.bincount(owner, weights=values.ravel()[flat])
    boxes = ndimage.find_objects(labels)
    return [
        Region(
            (columns.start, rows.start, columns.stop - 1, rows.stop - 1),
            float(sums[label] / areas[label]),
            int(areas[label]),
        )
        for label in large.tolist()
        for rows, columns in [boxes[label - 1]]
    ]


def rescale_boxes(
    boxes: npt.ArrayLike, orig_size: tuple[int, int], map_size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Boxes of a padded map in the pixels of the original image: the paper's released code, bit for bit.

    `Frame` has the arithmetic of everything else. Here padding is fractional,
    inclusive ends are not widened, boxes are cut to `size - 1`.

    `orig_size` and `map_size` are (width, height). Coordinates are rounded half to even and cut to the
    last pixel; boxes without extent are dropped.
    """
    (width, height), (map_width, map_height) = orig_size, map_size
    scale = max(width / map_width, height / map_height)
    pad = np.array([(map_width - width / scale) / 2, (map_height - height / scale) / 2] * 2)
    last = np.array([width - 1, height - 1] * 2)
    native = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - pad) * scale
    rounded = np.clip(np.rint(native), 0, last).astype(np.int64)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in rounded.tolist() if x2 > x1 and y2 > y1]
