"""Relevance mass: the share of the map's sum inside the region."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="relevance_mass",
    label="Mass",
    help="Share of the map's sum inside the region.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.relevance_mass,
    order=90,
)
