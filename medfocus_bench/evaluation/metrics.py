"""The names of the scores, in the order in which every table shows them."""

from __future__ import annotations

from dataclasses import dataclass

from medfocus_bench.evaluation.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Metric:
    """One score: its key in reports and its heading in tables; docs/scores.md explains each."""

    name: str
    label: str


EVIDENCE_AP = Metric("evidence_ap", "Evidence AP")
_OVERLAP = (
    Metric("iou", "IoU"),
    Metric("f1", "F1"),
    Metric("precision", "Precision"),
    Metric("recall", "Recall"),
)
_STANDARD = (
    EVIDENCE_AP,
    *_OVERLAP,
    Metric("precision_lift", "Lift"),
    Metric("corrected_iou", "IoU-c"),
    Metric("auroc", "AUROC"),
    Metric("relevance_mass", "Mass"),
    Metric("relevance_rank", "Rel. rank"),
    Metric("pointing", "Pointing"),
)

METRICS: dict[Protocol, tuple[Metric, ...]] = {"standard": _STANDARD, "paper": _OVERLAP}

HEADLINE: dict[Protocol, Metric] = {"standard": EVIDENCE_AP, "paper": _OVERLAP[0]}
"""The score by which rows are ranked."""
