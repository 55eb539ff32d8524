"""Evidence AP, by which rows are ranked: the average precision of the pixels, corrected for chance."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="evidence_ap",
    label="Evidence AP",
    help="Average precision of the pixels for the region, corrected for chance; 0 for the whole image.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.evidence_ap,
    order=10,
    featured=True,
)
