"""Precision: the share of the boxes that is evidence."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="precision",
    label="Precision",
    help="Share of the boxes that is evidence.",
    needs={"region", "boxes"},
    compute=lambda given: given.overlap.precision,
    order=40,
    protocols=("standard", "paper"),
)
