"""Evidence AP, by which rows are ranked: the average precision of the pixels, corrected for chance."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="evidence_ap",
    label="Evidence AP",
    help="Average precision of the low-passed pixels for the cause, corrected for chance; 0 says nothing.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.evidence_ap,
    order=10,
    featured=True,
)
