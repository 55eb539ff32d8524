"""Relevance mass: the share of the map's sum on the cause."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="relevance_mass",
    label="Mass",
    help="Share of the low-passed map's sum that lies on the cause.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.relevance_mass,
    order=90,
)
