"""AUROC of the pixels for the region."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="auroc",
    label="AUROC",
    help="How often a pixel of the region outranks another one; 0.5 by chance.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.auroc,
    order=80,
    featured=True,
)
