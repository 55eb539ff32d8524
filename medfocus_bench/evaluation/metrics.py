"""The names of the scores, in the order in which every table shows them."""

from __future__ import annotations

from dataclasses import dataclass

from medfocus_bench.evaluation.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Metric:
    """One score. `name` is its key in reports; `chance` is what an uninformative explanation gets."""

    name: str
    label: str
    meaning: str
    chance: str


EVIDENCE_AP = Metric(
    "evidence_ap", "Evidence AP", "chance-corrected average precision of the pixels for the region", "0"
)
_OVERLAP = (
    Metric("iou", "IoU", "intersection over union of predicted and expert boxes", "varies"),
    Metric("f1", "F1", "harmonic mean of precision and recall", "varies"),
    Metric("precision", "Precision", "share of the predicted area inside the region", "region share"),
    Metric("recall", "Recall", "share of the region that the prediction covers", "predicted share"),
)
_STANDARD = (
    EVIDENCE_AP,
    *_OVERLAP,
    Metric("precision_lift", "Lift", "precision of the selected pixels over the region's share", "1"),
    Metric("corrected_iou", "IoU-c", "IoU corrected by random translations of the prediction", "0"),
    Metric("auroc", "AUROC", "chance that a region pixel outranks another pixel", "0.5"),
    Metric("relevance_mass", "Mass", "share of the positive saliency inside the region", "region share"),
    Metric("relevance_rank", "Rank", "share of the region among as many top pixels", "region share"),
    Metric("pointing", "Pointing", "share of the top-valued pixels inside the region", "region share"),
)

METRICS: dict[Protocol, tuple[Metric, ...]] = {"standard": _STANDARD, "paper": _OVERLAP}

HEADLINE: dict[Protocol, Metric] = {"standard": EVIDENCE_AP, "paper": _OVERLAP[0]}
"""The score by which rows are ranked."""
