"""IoU-c: the IoU corrected for the one that a prediction would reach by chance."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from medfocus_bench.evaluation.metrics.metric import Metric, MetricInput
from medfocus_bench.evaluation.protocol import TRANSLATIONS
from medfocus_bench.geometry import BoxUnion, FloatArray


def chance_iou(
    predicted: BoxUnion,
    expert: BoxUnion,
    *,
    width: float,
    height: float,
    rng: np.random.Generator,
    translations: int = TRANSLATIONS,
) -> float:
    """Mean IoU with `expert` over random translations of `predicted` inside a `width` x `height` image.

    A part that leaves the image on one side enters it on the other, so the prediction keeps its area and its
    shape and every prediction has the same freedom. The translations are all pairs of k horizontal and k
    vertical shifts, k = ceil(sqrt(translations)), one drawn uniformly from each k-th part of the side: an
    unbiased estimate with far less variance than as many independent draws. The IoUs themselves are exact.
    """
    steps = int(np.ceil(np.sqrt(translations)))
    across = (np.arange(steps) + rng.random(steps)) * (width / steps)
    down = (np.arange(steps) + rng.random(steps)) * (height / steps)
    area, expert_area = predicted.area, expert.area
    if area == 0 or expert_area == 0:
        return 0.0
    columns = _wrapped_overlap(predicted.xs, expert.xs, across, width)
    rows = _wrapped_overlap(predicted.ys, expert.ys, down, height)
    in_rows = np.tensordot(rows, predicted.inside.astype(np.float64), axes=([1], [0]))
    on_columns = np.tensordot(columns, expert.inside.astype(np.float64), axes=([2], [1]))
    shared = np.tensordot(in_rows, on_columns, axes=([2, 1], [1, 2]))
    return float(np.mean(shared / (area + expert_area - shared)))


def corrected_iou(iou: float, by_chance: float) -> float:
    """(IoU - chance) / (1 - chance); 0 where every translation agrees with the whole image."""
    return (iou - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0


def _wrapped_overlap(moving: FloatArray, fixed: FloatArray, shifts: FloatArray, period: float) -> FloatArray:
    """Length shared by each interval of `moving`, shifted on a circle, and each of `fixed`.

    Shapes: edges (i + 1) and (k + 1), shifts (s) in [0, period] give (s, i, k).
    """
    low = moving[None, :-1, None] + shifts[:, None, None]
    high = moving[None, 1:, None] + shifts[:, None, None]
    total = np.zeros((len(shifts), len(moving) - 1, len(fixed) - 1))
    for turn in (0.0, period):
        shared = np.minimum(high - turn, fixed[1:]) - np.maximum(low - turn, fixed[:-1])
        total += np.clip(shared, 0.0, None)
    return total


def _compute(given: MetricInput) -> float:
    """Of a map, its selected pixels are moved in the pixels of the model frame; boxes, in native ones."""
    evidence, frame = given.evidence, given.evidence.frame
    rng = np.random.default_rng((given.seed, crc32(given.sample.sample_id.encode())))
    if given.attribution.boxes is None:
        predicted, expert, (width, height) = (
            BoxUnion.of_pixels(given.selected),
            evidence.union,
            frame.content_size,
        )
    else:
        predicted, expert = BoxUnion.of(given.boxes), BoxUnion.of(evidence.boxes)
        width, height = frame.width, frame.height
    by_chance = chance_iou(predicted, expert, width=width, height=height, rng=rng)
    return corrected_iou(given.overlap.iou, by_chance)


METRIC = Metric(
    name="corrected_iou",
    label="IoU-c",
    help="IoU corrected by that of random translations of the same prediction; 0 by chance.",
    needs={"region", "map", "boxes"},
    compute=_compute,
    order=70,
    featured=True,
)
