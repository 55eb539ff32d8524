"""F1: the harmonic mean of precision and recall."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="f1",
    label="F1",
    help="Harmonic mean of precision and recall.",
    needs={"region", "map", "boxes"},
    compute=lambda given: given.overlap.f1,
    order=30,
    protocols=("standard", "paper"),
)
