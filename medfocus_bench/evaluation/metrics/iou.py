"""IoU of what is selected and the annotated boxes."""

from medfocus_bench.evaluation.metrics.metric import Metric

METRIC = Metric(
    name="iou",
    label="IoU",
    help="Overlap with the annotated boxes over their union: of boxes, or of a map's top tenth.",
    needs={"region", "map", "boxes"},
    compute=lambda given: given.overlap.iou,
    order=20,
    featured=True,
    protocols=("standard", "paper"),
)
