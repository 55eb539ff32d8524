"""Recall: the share of the annotated boxes that is selected."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="recall",
    label="Recall",
    help="Share of the annotated boxes that is selected.",
    needs={"region", "map", "boxes"},
    compute=lambda given: given.overlap.recall,
    order=50,
    protocols=("standard", "paper"),
)
