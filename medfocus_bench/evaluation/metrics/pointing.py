"""Pointing: whether the maximum lies on the cause."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="pointing",
    label="Pointing",
    help="Whether the maximum of the low-passed map lies on the cause; ties are shared.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.pointing,
    order=110,
    featured=True,
)
