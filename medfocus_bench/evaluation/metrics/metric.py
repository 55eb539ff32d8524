"""One score, and what it is computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.sample import Sample
from medfocus_bench.evaluation.evidence import Evidence
from medfocus_bench.evaluation.lowpass import SaliencyMap, lowpassed
from medfocus_bench.evaluation.overlap import Overlap, box_overlap, pixel_overlap
from medfocus_bench.evaluation.protocol import SELECTED, Protocol
from medfocus_bench.evaluation.ranking import RankingScores, ranking_scores
from medfocus_bench.evaluation.regions import map_to_boxes, rescale_boxes
from medfocus_bench.geometry import BoolArray, FloatArray, Frame, clip_boxes, explains

Need = Literal["region", "map", "boxes", "lvlm"]
"""Inputs of a score. One that needs the `lvlm` is computed only where an LVLM can be loaded."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A score: `compute` gives its value for one explanation, higher is better.

    Args:
        name: its key in reports and results.
        label: its heading in tables.
        help: one sentence for readers of the page; docs/scores.md has the formula.
        needs: what it looks at.
        compute: from a `MetricInput` to a number; it is not called for an explanation that says nothing,
            which scores 0.
        order: its place in tables; scores of one order are sorted by name.
        featured: whether the page shows its column from the start.
        protocols: those that it belongs to.

    """

    name: str
    label: str
    help: str
    needs: Set[Need]
    compute: Callable[[MetricInput], float]
    order: int = 1000
    featured: bool = False
    protocols: tuple[Protocol, ...] = ("standard",)

    def __repr__(self) -> str:
        return f"Metric({self.name!r})"


@dataclass(frozen=True, eq=False)
class MetricInput:
    """An explanation beside the evidence region of its sample; values that scores share are computed once.

    `lvlm` is the adapter of the sample's LVLM, for the scores that need it.
    """

    sample: Sample
    evidence: Evidence
    attribution: Attribution
    protocol: Protocol = "standard"
    seed: int = 0
    lvlm: Any = None

    @cached_property
    def values(self) -> SaliencyMap:
        """The map, or the coverage of the boxes, on the image's pixels, (content height, content width).

        Low-passed, with a largest magnitude of 1.
        """
        return lowpassed(self.attribution, self.evidence.frame)

    @cached_property
    def says_nothing(self) -> bool:
        """Whether the explanation is empty; under `paper` no map is."""
        if self.attribution.boxes is not None:
            return len(self.attribution.boxes) == 0 or (self.protocol == "standard" and not self.values.any())
        return self.protocol == "standard" and not explains(self.values)

    @cached_property
    def ranking(self) -> RankingScores:
        return ranking_scores(self.values, self.evidence.pixels, self.evidence.counted)

    @cached_property
    def selected(self) -> BoolArray:
        """The pixels of the top tenth of the values: (content height, content width).

        Those from the value on that a tenth of the image's pixels, rounded up, reach at least. Pixels that
        share this value are all selected, but never those at the lowest of all values: a map that lies on
        fewer pixels than a tenth selects fewer.
        """
        values = self.values
        rank = values.size - math.ceil(SELECTED * values.size)
        cut = np.partition(values, rank, axis=None)[rank]
        lowest = values.min()
        return np.asarray(values >= cut if cut > lowest else values > lowest)

    @cached_property
    def boxes(self) -> FloatArray:
        """The boxes, native pixels, (n, 4); of a map under `paper`, those of its regions.

        Raises ValueError for a map under another protocol, which has none.
        """
        frame = self.evidence.frame
        if self.protocol == "paper":
            return _paper_boxes(frame, self.attribution.in_model_frame(frame))
        if self.attribution.boxes is None:
            raise ValueError(f"{self.sample.sample_id}: a map has no boxes; take its selected pixels")
        return clip_boxes(self.attribution.boxes, frame.width, frame.height)

    @cached_property
    def overlap(self) -> Overlap:
        """The overlap with the annotated boxes: of boxes, exact; of a map, of its selected pixels."""
        if self.attribution.boxes is None and self.protocol == "standard":
            return pixel_overlap(self.selected, self.evidence.union)
        return box_overlap(self.boxes, self.evidence.boxes)


def _paper_boxes(frame: Frame, attribution: Attribution) -> FloatArray:
    if attribution.saliency is None:
        assert attribution.boxes is not None
        return attribution.boxes
    regions = map_to_boxes(_in_model_pixels(frame, attribution.saliency))
    boxes = [region.box for region in regions]
    native = rescale_boxes(boxes, (frame.width, frame.height), (frame.size, frame.size)) if boxes else []
    return np.array(native, dtype=np.float64).reshape(-1, 4)


def _in_model_pixels(frame: Frame, saliency: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The map at the model frame's pixels, which the smallest area counts; an empty one as it is.

    A value that is not finite reaches the pixels that draw on it, and no others.
    """
    if saliency.size == 0:
        return saliency
    finite = np.isfinite(saliency)
    with np.errstate(over="ignore"):
        resampled = frame.whole_of(np.where(finite, saliency, 0))
    if not finite.all():
        # The protocol makes nothing of a map with a NaN or a negative infinity, wherever they are.
        value = np.inf if (saliency[~finite] > 0).all() else np.nan
        resampled[frame.whole_of(~finite) > 0] = value
    return resampled
