"""From a saliency map to boxes: normalise, threshold, label, drop the small, rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medfocus_bench.evaluation.protocol import MAX_BOXES, MIN_AREA, QUANTILE, Protocol
from medfocus_bench.geometry import BoolArray, explains

SaliencyMap = npt.NDArray[np.float32]

_NEIGHBOURS = {4: ndimage.generate_binary_structure(2, 1), 8: ndimage.generate_binary_structure(2, 2)}
_PAPER_EPSILON = np.float32(1e-8)


@dataclass(frozen=True, slots=True)
class Region:
    """A connected part of a map above its threshold.

    `box` is in the map's own pixels: half-open under the standard protocol, with inclusive ends under the
    paper's. `score` is the mean of the normalised saliency over the part's `area` pixels.
    """

    box: tuple[int, int, int, int]
    score: float
    area: int


def map_to_boxes(
    saliency: npt.ArrayLike,
    *,
    protocol: Protocol = "standard",
    quantile: float = QUANTILE,
    min_area: int = MIN_AREA,
    max_boxes: int = MAX_BOXES,
    connectivity: Literal[4, 8] = 8,
    remove_zeros: bool = True,
) -> list[Region]:
    """The regions of a 2-D map, best first.

    The map is min-max normalised; pixels at or above `quantile` of the normalised values (of the non-zero
    ones when `remove_zeros`) are selected and joined to `connectivity`-connected components; those under
    `min_area` pixels are dropped; the rest is ranked by mean saliency and cut to `max_boxes`.

    `protocol="standard"`: half-open boxes. A map that explains nothing (empty, constant, NaN or inf
    anywhere) gives an empty list. The order never depends on the scan order: equal mean saliency (to nine
    digits) is ranked by area, then by distance from the centre of the map; regions that tie even so and
    straddle the limit are all dropped.

    `protocol="paper"`: what the released code of the paper computes, bit for bit, in float32: boxes with
    inclusive ends, ties in scan order, and whatever its arithmetic makes of maps that explain nothing. A
    constant map is the whole image. With one infinite value everything else is 0 and that value NaN, so the
    box is that of all other pixels: the whole image, unless the infinite ones fill its edge. A NaN or a
    negative infinity anywhere turns all into NaN, and nothing is selected.

    Raises ValueError for a map that is not 2-D.
    """
    values = np.asarray(saliency)
    if values.ndim != 2:
        raise ValueError(f"a saliency map is 2-D, not of shape {values.shape}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if protocol == "paper":
        regions = _paper_regions(values, quantile, min_area, connectivity, remove_zeros)
        return sorted(regions, key=lambda region: -region.score)[:max_boxes]
    if not explains(values):
        return []
    zeros = int(np.count_nonzero(values == values.min())) if remove_zeros else 0
    rank = selection_rank(values.size, zeros, quantile)
    cut = np.partition(values, rank, axis=None)[rank]
    return standard_regions(
        values, values >= cut, min_area=min_area, max_boxes=max_boxes, connectivity=connectivity
    )


def selection_rank(pixels: int, zeros: int, quantile: float = QUANTILE) -> int:
    """The ascending rank of the smallest value that is selected, of `pixels` values that start with `zeros`.

    It is the first value at or above the quantile (linear interpolation) of the min-max normalised values
    after the zeros, which are the pixels at the minimum. Being an element of the map, it needs neither the
    normalisation nor a comparison of rounded numbers.
    """
    position = zeros + quantile * (pixels - 1 - zeros)
    return int(np.ceil(round(position, 6)))


def standard_regions(
    values: SaliencyMap,
    selected: BoolArray,
    *,
    min_area: int = MIN_AREA,
    max_boxes: int = MAX_BOXES,
    connectivity: Literal[4, 8] = 8,
) -> list[Region]:
    """The components of `selected` as half-open regions, ranked as in `map_to_boxes`."""
    height, width = values.shape
    low, high = float(values.min()), float(values.max())

    def rank(region: Region) -> tuple[float, int, float]:
        x1, y1, x2, y2 = region.box
        off_centre = (x1 + x2 - width) ** 2 + (y1 + y2 - height) ** 2
        return -round(region.score, 9), -region.area, off_centre

    found = _components(values, selected, min_area, connectivity)
    ranked = sorted(
        (
            Region((x1, y1, x2 + 1, y2 + 1), (mean - low) / (high - low), area)
            for (x1, y1, x2, y2), mean, area in found
        ),
        key=rank,
    )
    kept = ranked[:max_boxes]
    if len(ranked) > max_boxes and kept:
        first_out = rank(ranked[max_boxes])
        kept = [region for region in kept if rank(region) != first_out]
    return kept


def _paper_regions(
    values: SaliencyMap, quantile: float, min_area: int, connectivity: Literal[4, 8], remove_zeros: bool
) -> list[Region]:
    if values.size == 0:
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        above = values - values.min()
        normalised = above / (above.max() + _PAPER_EPSILON)
    # A comparison with NaN is false: such a pixel is neither counted nor selected.
    counted = normalised[normalised > 0] if remove_zeros else normalised
    cut = np.quantile(counted, quantile) if counted.size else np.float32(0)
    components = _components(normalised, normalised >= cut, min_area, connectivity)
    return [Region(box, score, area) for box, score, area in components]


def _components(
    values: npt.NDArray[np.floating], selected: BoolArray, min_area: int, connectivity: Literal[4, 8]
) -> list[tuple[tuple[int, int, int, int], float, int]]:
    """Inclusive box, mean value and area of each large enough component, in scan order."""
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
        (
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

    For the `paper` protocol only; `Frame` has the arithmetic of everything else. Here padding is fractional,
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
