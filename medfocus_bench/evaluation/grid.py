"""The grid of a submission's maps, and what a grid can reach at most: its ceiling."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Final
from weakref import WeakKeyDictionary

import numpy as np
from pydantic import Field

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.evaluation.evidence import Evidence
from medfocus_bench.evaluation.lowpass import lowpassed
from medfocus_bench.evaluation.ranking import ranking_scores
from medfocus_bench.geometry import MapFrame, area_weights
from medfocus_bench.submission.schema import Strict


class Grid(Strict):
    """The resolution of a submission's maps.

    `rows` and `columns` are those of the most common one, of `resolutions` different ones. `ceiling` is the
    mean evidence AP, over the samples with a map, of the exact mask of the cause averaged onto the cells of
    that map: knowing all of it, a method on this grid would get that.
    """

    rows: int
    columns: int
    resolutions: int
    ceiling: Annotated[float, Field(allow_inf_nan=False)]


class GridTally:
    """Collects the grid and the ceiling of maps as they are scored."""

    def __init__(self) -> None:
        self._shapes: Counter[tuple[int, int]] = Counter()
        self._sum = 0.0

    def add(self, attribution: Attribution, evidence: Evidence) -> None:
        """Take a map of a sample with this evidence into account; boxes, and an empty map, are left out."""
        if attribution.saliency is None or attribution.saliency.size == 0:
            return
        rows, columns = attribution.saliency.shape
        self._shapes[rows, columns] += 1
        self._sum += ceiling(evidence, rows, columns, attribution.frame)

    def grid(self) -> Grid | None:
        """None where no map came."""
        if not self._shapes:
            return None
        (rows, columns), _ = min(self._shapes.items(), key=lambda item: (-item[1], item[0]))
        return Grid(
            rows=rows,
            columns=columns,
            resolutions=len(self._shapes),
            ceiling=self._sum / self._shapes.total(),
        )


_CEILINGS: Final[WeakKeyDictionary[Evidence, dict[tuple[int, int, MapFrame], float]]] = WeakKeyDictionary()
"""By region and resolution, as long as the region is kept: LVLMs, modes and methods share them."""


def ceiling(evidence: Evidence, rows: int, columns: int, covers: MapFrame = "model") -> float:
    """The evidence AP of the mask, averaged onto a grid over the model frame or the image alone."""
    known = _CEILINGS.setdefault(evidence, {})
    if (rows, columns, covers) not in known:
        known[rows, columns, covers] = _ceiling(evidence, rows, columns, covers)
    return known[rows, columns, covers]


def _ceiling(evidence: Evidence, rows: int, columns: int, covers: MapFrame) -> float:
    frame, mask = evidence.frame, evidence.pixels.astype(np.float64)
    if covers == "model":
        left, top, right, bottom = frame.content
        mask = np.zeros((frame.size, frame.size))
        mask[top:bottom, left:right] = evidence.pixels
    height, width = mask.shape
    averaged = area_weights(height, rows) @ mask @ area_weights(width, columns).T
    values = lowpassed(Attribution(saliency=averaged, frame=covers), frame)
    return ranking_scores(values, evidence.pixels, evidence.counted).evidence_ap
