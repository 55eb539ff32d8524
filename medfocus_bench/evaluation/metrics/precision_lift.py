"""Lift: precision over the boxes' share of the image."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="precision_lift",
    label="Lift",
    help="Precision of what is selected over the boxes' share of the image; 1 for the whole image.",
    needs={"region", "map", "boxes"},
    compute=lambda given: given.overlap.precision / given.evidence.share,
    order=60,
)
