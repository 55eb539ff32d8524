"""The values that the paper reports (arXiv 2605.20158).

The paper's own code computed them, on its own samples. A value that is not in this module is not published
here, and is never filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

NAMES: Final[Mapping[str, str]] = {
    "attention-head": "Attention Head",
    "attention-rollout": "Attention Rollout",
    "lrp": "LRP",
    "gradient-weighted-attention": "Gradient-weighted Attention",
    "grad-cam": "Grad-CAM",
    "grad-cam-plus-plus": "Grad-CAM++",
    "integrated-gradients": "Integrated Gradients",
    "prompting": "Prompting",
    "prompting-medsam": "Prompting + MedSAM",
    "occlusion": "Occlusion",
    "rise": "RISE",
    "medfocus": "MedFocus",
}
"""Names of the methods in the paper, in its order."""

SOURCES: Final[Mapping[str, str]] = {
    "imagenome": "ImaGenome",
    "vindr_cxr": "VinDR-CXR",
    "padchest_gr": "PadChest-GR",
}
"""Names of the sources in the paper, in its order."""

OVERLAP: Final = ("iou", "f1", "precision", "recall")
"""The order of the scores of `MAIN_DIRECT`."""

_TABLE: Final = """
attention-head  0.42  15.87 26.10 48.17 19.12  6.93 11.80 11.09 23.53  14.33 23.30 31.42 23.53
attention-rollout  0.43  2.70 5.05 12.70 3.30  0.70 1.30 1.58 1.67  2.77 5.06 9.29 4.17
lrp  0.40  5.67 10.15 22.61 6.84  1.93 3.42 3.39 7.34  4.12 7.18 11.79 6.89
gradient-weighted-attention  0.60  39.24 54.80 39.25 99.90  7.73 13.26 7.73 100.00  22.73 34.21 22.73 100.00
grad-cam  0.53  34.47 49.10 44.81 80.62  8.53 14.36 11.95 68.91  20.33 31.22 26.01 78.36
grad-cam-plus-plus  0.61  30.54 44.07 44.40 65.42  7.40 12.61 9.36 60.64  18.28 28.09 25.93 62.96
integrated-gradients  7.60  11.71 19.13 46.39 13.45  9.38 14.96 15.10 30.42  13.06 20.12 33.85 20.73
prompting  1.09  8.24 12.17 15.24 17.73  2.45 4.04 3.24 12.22  7.55 11.47 13.03 18.02
prompting-medsam  0.98  37.62 50.56 46.62 74.64  8.33 13.78 9.11 86.08  21.76 32.29 23.22 85.52
occlusion  2.64  22.16 33.48 60.25 36.72  13.62 21.28 22.13 43.81  20.56 31.20 44.03 40.72
rise  2.49  19.17 30.84 50.35 24.18  10.14 16.69 14.21 36.69  16.80 26.89 33.76 29.45
medfocus  1.65  54.24 67.54 64.47 80.58  14.81 23.04 15.87 80.99  32.77 45.44 40.15 76.51
"""
"""By method: seconds a sample on an A100; then IoU, F1, precision and recall of each source."""

_ROWS: Final = {
    name: [float(number) for number in numbers]
    for name, *numbers in (line.split() for line in _TABLE.splitlines() if line)
}

MAIN_DIRECT: Final[Mapping[str, Mapping[str, Sequence[float]]]] = {
    method: {source: row[1 + 4 * n : 5 + 4 * n] for n, source in enumerate(SOURCES)}
    for method, row in _ROWS.items()
}
"""Scores in per cent by method and source: direct mode, means over the six LVLMs."""

COMPUTES: Final[Mapping[str, str | None]] = {"lrp": "attention-rollout", "attention-rollout": None}
"""The method here that computes what the paper's released code computes under a name, if it is another one.

Its LRP is attention rollout from the rows that predict the response; its rollout multiplies the blocks in the
other order, which none of ours does (docs/deviations.md has the figures).
"""

BESIDE: Final[Mapping[str, str]] = {
    method: name for name in MAIN_DIRECT if (method := COMPUTES.get(name, name)) is not None
}
"""By method here, the name under which the paper publishes what it computes."""

SECONDS: Final[Mapping[str, float]] = {method: row[0] for method, row in _ROWS.items()}
"""Seconds a sample on an A100, by method."""

_LVLMS: Final = (
    "qwen2_5_vl_3b",
    "qwen2_5_vl_7b",
    "gemma3_4b",
    "gemma3_12b",
    "medgemma_4b",
    "medgemma_1_5_4b",
)

_KEPT: Final = {
    ("direct", "imagenome"): (105, 55, 42, 97, 279, 226),
    ("direct", "vindr_cxr"): (30, 44, 107, 80, 93, 79),
    ("direct", "padchest_gr"): (64, 43, 73, 105, 190, 168),
    ("reasoning", "imagenome"): (56, 56, 64, 78, 247, 285),
    ("reasoning", "vindr_cxr"): (81, 46, 151, 64, 97, 89),
    ("reasoning", "padchest_gr"): (115, 46, 127, 109, 168, 181),
}

KEPT: Final[Mapping[tuple[str, str, str], int]] = {
    (mode, source, lvlm): count
    for (mode, source), counts in _KEPT.items()
    for lvlm, count in zip(_LVLMS, counts, strict=True)
}
"""Samples that passed the causal filter, by mode, source and LVLM."""
