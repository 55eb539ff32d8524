"""IoU of the boxes and the region."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="iou",
    label="IoU",
    help="Overlap of the boxes with the region over their union; a map is first turned into boxes at its "
    "90th percentile.",
    needs={"region", "boxes"},
    compute=lambda given: given.overlap.iou,
    order=20,
    featured=True,
    protocols=("standard", "paper"),
)
