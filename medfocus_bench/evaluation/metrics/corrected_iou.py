"""IoU-c: the IoU corrected for the one that a prediction would reach by chance."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import numpy.typing as npt

from medfocus_bench.evaluation.metrics.metric import Metric, MetricInput
from medfocus_bench.evaluation.protocol import TRANSLATIONS
from medfocus_bench.geometry import BoxUnion, FloatArray


def chance_iou(
    predicted: npt.ArrayLike,
    expert: npt.ArrayLike,
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
    a, b = BoxUnion.of(predicted), BoxUnion.of(expert)
    if a.area == 0 or b.area == 0:
        return 0.0
    columns = _wrapped_overlap(a.xs, b.xs, across, width)
    rows = _wrapped_overlap(a.ys, b.ys, down, height)
    in_rows = np.einsum("vjl,ji->vli", rows, a.inside.astype(np.float64))
    on_columns = np.einsum("hik,lk->hil", columns, b.inside.astype(np.float64))
    shared = np.tensordot(in_rows, on_columns, axes=([1, 2], [2, 1]))
    union = a.area + b.area - shared
    return float(np.mean(shared / union))


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
    evidence = given.evidence
    rng = np.random.default_rng((given.seed, crc32(evidence.sample_id.encode())))
    by_chance = chance_iou(
        given.boxes, evidence.boxes, width=evidence.frame.width, height=evidence.frame.height, rng=rng
    )
    return corrected_iou(given.overlap.iou, by_chance)


METRIC = Metric(
    name="corrected_iou",
    label="IoU-c",
    help="IoU corrected by that of random translations of the same prediction; 0 by chance.",
    needs={"region", "boxes"},
    compute=_compute,
    order=70,
    featured=True,
)
