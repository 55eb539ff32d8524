"""The numbers that the paper reports (arXiv 2605.20158), in per cent: direct mode, means over its models.

They were computed by the paper's own code on other samples, with other conventions: they stand on a page of
their own and are never mixed with verified rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOURCES: Final = ("ImaGenome", "VinDR-CXR", "PadChest-GR")
SCORES: Final = ("IoU", "F1", "Precision", "Recall")


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A method of the paper: IoU, F1, precision and recall of each source, and seconds a sample (A100)."""

    method: str
    scores: tuple[tuple[float, float, float, float], ...]
    seconds: float | None = None


PUBLISHED: Final = (
    PublishedRow(
        "Attention Head",
        ((15.87, 26.10, 48.17, 19.12), (6.93, 11.80, 11.09, 23.53), (14.33, 23.30, 31.42, 23.53)),
        0.42,
    ),
    PublishedRow(
        "Attention Rollout",
        ((2.70, 5.05, 12.70, 3.30), (0.70, 1.30, 1.58, 1.67), (2.77, 5.06, 9.29, 4.17)),
        0.43,
    ),
    PublishedRow(
        "LRP", ((5.67, 10.15, 22.61, 6.84), (1.93, 3.42, 3.39, 7.34), (4.12, 7.18, 11.79, 6.89)), 0.40
    ),
    PublishedRow(
        "Gradient-weighted Attention",
        ((39.24, 54.80, 39.25, 99.90), (7.73, 13.26, 7.73, 100.00), (22.73, 34.21, 22.73, 100.00)),
        0.60,
    ),
    PublishedRow(
        "Grad-CAM",
        ((34.47, 49.10, 44.81, 80.62), (8.53, 14.36, 11.95, 68.91), (20.33, 31.22, 26.01, 78.36)),
        0.53,
    ),
    PublishedRow(
        "Grad-CAM++",
        ((30.54, 44.07, 44.40, 65.42), (7.40, 12.61, 9.36, 60.64), (18.28, 28.09, 25.93, 62.96)),
        0.61,
    ),
    PublishedRow(
        "Integrated Gradients",
        ((11.71, 19.13, 46.39, 13.45), (9.38, 14.96, 15.10, 30.42), (13.06, 20.12, 33.85, 20.73)),
        7.60,
    ),
    PublishedRow(
        "Prompting",
        ((8.24, 12.17, 15.24, 17.73), (2.45, 4.04, 3.24, 12.22), (7.55, 11.47, 13.03, 18.02)),
        1.09,
    ),
    PublishedRow(
        "Prompting + MedSAM",
        ((37.62, 50.56, 46.62, 74.64), (8.33, 13.78, 9.11, 86.08), (21.76, 32.29, 23.22, 85.52)),
        0.98,
    ),
    PublishedRow(
        "Occlusion",
        ((22.16, 33.48, 60.25, 36.72), (13.62, 21.28, 22.13, 43.81), (20.56, 31.20, 44.03, 40.72)),
        2.64,
    ),
    PublishedRow(
        "RISE",
        ((19.17, 30.84, 50.35, 24.18), (10.14, 16.69, 14.21, 36.69), (16.80, 26.89, 33.76, 29.45)),
        2.49,
    ),
    PublishedRow(
        "MedFocus",
        ((54.24, 67.54, 64.47, 80.58), (14.81, 23.04, 15.87, 80.99), (32.77, 45.44, 40.15, 76.51)),
        1.65,
    ),
)
