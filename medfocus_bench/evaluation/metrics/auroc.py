"""AUROC of the pixels for the cause."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="auroc",
    label="AUROC",
    help="How often a pixel of the cause outranks one elsewhere; 0.5 by chance.",
    needs={"region", "map"},
    compute=lambda given: given.ranking.auroc,
    order=80,
    featured=True,
)
