"""Pointing: whether the maximum lies inside the region."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="pointing",
    label="Pointing",
    help="Whether the maximum lies inside the region; ties are shared.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.pointing,
    order=110,
    featured=True,
)
