"""Lift: precision over the region's share of the image."""

from medfocus_bench.evaluation.metrics.metric import Metric, MetricInput


def _compute(given: MetricInput) -> float:
    """Of a map, the precision of its selected pixels, before components: so it is defined for any map."""
    if given.attribution.saliency is None:
        return given.overlap.precision / given.evidence.share
    pixels = given.evidence.pixels
    return float(pixels[given.selected].mean() / pixels.mean())


METRIC = Metric(
    name="precision_lift",
    label="Lift",
    help="Precision of what is selected over the region's share of the image; 1 by chance.",
    needs={"region", "map", "boxes"},
    compute=_compute,
    order=60,
)
