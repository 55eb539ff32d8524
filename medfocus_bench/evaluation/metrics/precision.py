"""Precision: the share of what is selected that lies in the annotated boxes."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="precision",
    label="Precision",
    help="Share of what is selected that lies in the annotated boxes.",
    needs={"region", "map", "boxes"},
    compute=lambda given: given.overlap.precision,
    order=40,
    protocols=("standard", "paper"),
)
