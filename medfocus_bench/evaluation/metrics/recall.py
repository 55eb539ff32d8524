"""Recall: the share of the evidence that is in the boxes."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="recall",
    label="Recall",
    help="Share of the evidence that is in the boxes.",
    needs={"region", "boxes"},
    compute=lambda given: given.overlap.recall,
    order=50,
    protocols=("standard", "paper"),
)
