"""Relevance rank: the share of the top pixels on the cause."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="relevance_rank",
    label="Rel. rank",
    help="Share of the top pixels that lie on the cause.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.relevance_rank,
    order=100,
)
