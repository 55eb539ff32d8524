"""Overlap of what is predicted, boxes or pixels, with the union of expert boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import BoolArray, BoxUnion, FloatArray, interval_overlap


@dataclass(frozen=True, slots=True)
class Overlap:
    """IoU, F1, precision and recall of two unions, each in [0, 1]."""

    iou: float
    f1: float
    precision: float
    recall: float


def box_overlap(predicted: npt.ArrayLike, expert: npt.ArrayLike, *, inclusive: bool = False) -> Overlap:
    """Exact overlap of the unions of two box lists, (n, 4) and (m, 4), given in the same frame.

    With `inclusive`, the far ends belong to the boxes, as in the released code of the paper: one is added
    to x2 and y2. Boxes without area, swapped ones included, cover nothing. If both unions are empty they
    agree: all four scores are 1; if one of them is, all are 0.
    """
    left, right = _covering(predicted, inclusive), _covering(expert, inclusive)
    if len(left) == 0 or len(right) == 0:
        agreement = float(len(left) == len(right))
        return Overlap(agreement, agreement, agreement, agreement)
    a, b = BoxUnion.of(left, among=right), BoxUnion.of(right, among=left)
    return _overlap(a.intersection_area(b), a.area, b.area)


def pixel_overlap(selected: BoolArray, expert: BoxUnion) -> Overlap:
    """Overlap of selected pixels (rows, columns), one at least, with a union in the same pixels, not empty.

    Areas are exact: a pixel that the union covers in part shares that part with it.
    """
    rows, columns = (
        interval_overlap(edges, cells)
        for edges, cells in zip((expert.ys, expert.xs), selected.shape, strict=True)
    )
    cells = rows @ selected.astype(np.float64) @ columns.T
    return _overlap(float(cells[expert.inside].sum()), float(np.count_nonzero(selected)), expert.area)


def _overlap(shared: float, area: float, expert_area: float) -> Overlap:
    return Overlap(
        iou=shared / (area + expert_area - shared),
        f1=2 * shared / (area + expert_area),
        precision=shared / area,
        recall=shared / expert_area,
    )


def _covering(boxes: npt.ArrayLike, inclusive: bool) -> FloatArray:
    """The boxes that cover something, as half-open ones."""
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) + np.array([0, 0, inclusive, inclusive])
    return np.asarray(array[(array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])])
