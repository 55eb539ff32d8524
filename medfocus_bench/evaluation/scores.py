"""The scores of one attribution against one evidence region."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.evaluation.chance import chance_iou, corrected_iou
from medfocus_bench.evaluation.metrics import METRICS
from medfocus_bench.evaluation.overlap import Overlap, box_overlap
from medfocus_bench.evaluation.paper import rescale_boxes
from medfocus_bench.evaluation.protocol import Protocol
from medfocus_bench.evaluation.ranking import RankingScores, ranking_scores
from medfocus_bench.evaluation.regions import explains, map_to_boxes, selection_rank, standard_regions
from medfocus_bench.geometry import BoolArray, BoxUnion, FloatArray, Frame, clip_boxes


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The evidence region of one sample, as every score needs it.

    `boxes` (native frame, cut to the image), `pixels` (content height, content width): the model-frame
    pixels that are at least half covered, or the most covered ones of a region too small for that, or the
    one that holds the centre of the largest box if the region is too small even to measure, and `share`: the
    exact share of the image's area.
    """

    sample_id: str
    frame: Frame
    boxes: FloatArray
    pixels: BoolArray
    share: float

    @classmethod
    def of(cls, sample_id: str, width: int, height: int, boxes: npt.ArrayLike) -> Evidence:
        """Raises ValueError for boxes that cover nothing of the image."""
        frame = Frame(width, height)
        native = clip_boxes(boxes, width, height)
        share = BoxUnion.of(native).area / (width * height)
        if share == 0:
            raise ValueError(f"{sample_id}: the evidence boxes cover nothing of the image")
        covered = frame.coverage(native)
        if not covered.any():
            covered[_centre_pixel(frame, native)] = 1.0
        return cls(sample_id, frame, native, covered >= min(0.5, covered.max()), share)


def _centre_pixel(frame: Frame, boxes: FloatArray) -> tuple[int, int]:
    """Row and column, in the content, of the centre of the largest of the native `boxes`."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    x1, y1, x2, y2 = frame.to_model(boxes)[areas.argmax()]
    left, top, right, bottom = frame.content
    return min(int((y1 + y2) / 2), bottom - 1) - top, min(int((x1 + x2) / 2), right - 1) - left


def score_attribution(
    evidence: Evidence, attribution: Attribution | None, *, protocol: Protocol = "standard", seed: int = 0
) -> FloatArray | None:
    """The scores of `METRICS[protocol]`, in that order; None where there is no explanation.

    No explanation: a missing attribution, an empty list of boxes and, under `standard`, an empty, constant or
    not everywhere finite map. It counts as zero in every mean.
    """
    if attribution is None or (attribution.boxes is not None and len(attribution.boxes) == 0):
        return None
    attribution = attribution.in_model_frame(evidence.frame)
    if protocol == "paper":
        return _paper_scores(evidence, attribution)
    rng = np.random.default_rng((seed, crc32(evidence.sample_id.encode())))
    if attribution.saliency is not None:
        return _map_scores(evidence, attribution.saliency, rng)
    assert attribution.boxes is not None
    return _box_scores(evidence, attribution.boxes, rng)


def _paper_scores(evidence: Evidence, attribution: Attribution) -> FloatArray:
    boxes: npt.ArrayLike
    if attribution.saliency is not None:
        frame = evidence.frame
        regions = map_to_boxes(_in_model_pixels(frame, attribution.saliency), protocol="paper")
        found = [region.box for region in regions]
        boxes = rescale_boxes(found, (frame.width, frame.height), (frame.size, frame.size)) if found else []
    else:
        assert attribution.boxes is not None
        boxes = attribution.boxes
    overlap = box_overlap(boxes, evidence.boxes)
    return np.array([getattr(overlap, metric.name) for metric in METRICS["paper"]])


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
        # Of a map with a NaN or a negative infinity the protocol makes nothing, wherever they are.
        value = np.inf if (saliency[~finite] > 0).all() else np.nan
        resampled[frame.whole_of(~finite) > 0] = value
    return resampled


def _map_scores(
    evidence: Evidence, saliency: npt.NDArray[np.generic], rng: np.random.Generator
) -> FloatArray | None:
    if not explains(saliency):
        return None
    values = evidence.frame.content_of(saliency)
    if not explains(values):
        return None
    ranking = ranking_scores(values, evidence.pixels)
    selected = values >= _cut(ranking.ordered)
    left, top, _, _ = evidence.frame.content
    regions = standard_regions(values, selected)
    in_content = np.array([region.box for region in regions], dtype=np.float64).reshape(-1, 4)
    boxes = evidence.frame.to_native(in_content + np.array([left, top, left, top]))
    lift = float(evidence.pixels[selected].mean() / evidence.pixels.mean())
    return _in_order(ranking, box_overlap(boxes, evidence.boxes), lift, boxes, evidence, rng)


def _cut(ordered: npt.NDArray[np.float32]) -> np.float32:
    """The smallest selected value, from the ascending values of a map that explains."""
    zeros = int(np.searchsorted(ordered, ordered[0], side="right"))
    return np.float32(ordered[selection_rank(len(ordered), zeros)])


def _box_scores(evidence: Evidence, boxes: FloatArray, rng: np.random.Generator) -> FloatArray | None:
    frame = evidence.frame
    native = clip_boxes(boxes, frame.width, frame.height)
    overlap = box_overlap(native, evidence.boxes)
    covered = frame.coverage(native).astype(np.float32)
    if not covered.any():
        return None
    ranking = ranking_scores(covered, evidence.pixels)
    return _in_order(ranking, overlap, overlap.precision / evidence.share, native, evidence, rng)


def _in_order(
    ranking: RankingScores,
    overlap: Overlap,
    lift: float,
    boxes: FloatArray,
    evidence: Evidence,
    rng: np.random.Generator,
) -> FloatArray:
    frame = evidence.frame
    by_chance = chance_iou(boxes, evidence.boxes, width=frame.width, height=frame.height, rng=rng)
    score_of = {
        "evidence_ap": ranking.evidence_ap,
        "iou": overlap.iou,
        "f1": overlap.f1,
        "precision": overlap.precision,
        "recall": overlap.recall,
        "precision_lift": lift,
        "corrected_iou": corrected_iou(overlap.iou, by_chance),
        "auroc": ranking.auroc,
        "relevance_mass": ranking.relevance_mass,
        "relevance_rank": ranking.relevance_rank,
        "pointing": ranking.pointing,
    }
    return np.array([score_of[metric.name] for metric in METRICS["standard"]])
