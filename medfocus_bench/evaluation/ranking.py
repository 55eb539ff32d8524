"""Scores of a map as a ranking of pixels: no threshold, no boxes.

Throughout, `values` are the content pixels of a map (padding is gone), `region` says which of them are
evidence, n is their number, P the number of evidence pixels and a = P / n. Pixels of equal value are one
group: no score depends on the order in which they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import BoolArray


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Threshold-free scores of one map; `docs/scores.md` gives the formulas.

    `ordered` holds the ascending pixel values, for whoever needs a quantile of them.
    """

    average_precision: float
    evidence_ap: float
    auroc: float
    relevance_mass: float
    relevance_rank: float
    pointing: float
    ordered: npt.NDArray[np.float32]


def ranking_scores(values: npt.NDArray[np.float32], region: BoolArray) -> RankingScores:
    """All ranking scores from one sort. `values` and `region` have one shape; `region` has a true pixel.

    average_precision: mean over the evidence pixels of (evidence pixels ranked at least as high) / (pixels
    ranked at least as high). evidence_ap: (AP - a) / (1 - a), and 0 where the region is the whole image, of
    which no explanation can say anything. auroc: ties count half; 0.5 where the region is the whole image.
    relevance_mass: negative values count as zero; 0 where no value is positive. relevance_rank: the P-th
    place may fall into a tie, whose pixels then share the places left. pointing: the pixels at the maximum
    share one vote.
    """
    ordered = np.sort(values, axis=None)
    evidence = np.sort(values[region])
    total, hits = len(ordered), len(evidence)
    others = total - hits
    below = np.searchsorted(ordered, evidence, side="left")
    evidence_below = np.searchsorted(evidence, evidence, side="left")
    average_precision = float(np.mean((hits - evidence_below) / (total - below)))
    share = hits / total

    mass = float(np.sum(values, where=values > 0, dtype=np.float64))
    inside = float(np.sum(evidence, where=evidence > 0, dtype=np.float64))
    return RankingScores(
        average_precision=average_precision,
        evidence_ap=(average_precision - share) / (1 - share) if others else 0.0,
        auroc=_auroc(ordered, evidence, below, evidence_below) if others else 0.5,
        relevance_mass=inside / mass if mass > 0 else 0.0,
        relevance_rank=_share_of_top(ordered, evidence, hits),
        pointing=_share_of_top(ordered, evidence, 1),
        ordered=ordered,
    )


def _auroc(
    ordered: npt.NDArray[np.float32],
    evidence: npt.NDArray[np.float32],
    below: npt.NDArray[np.intp],
    evidence_below: npt.NDArray[np.intp],
) -> float:
    up_to = np.searchsorted(ordered, evidence, side="right")
    evidence_up_to = np.searchsorted(evidence, evidence, side="right")
    others_below = below - evidence_below
    others_tied = up_to - evidence_up_to - others_below
    return float(np.mean(others_below + 0.5 * others_tied) / (len(ordered) - len(evidence)))


def _share_of_top(ordered: npt.NDArray[np.float32], evidence: npt.NDArray[np.float32], places: int) -> float:
    """Share of the `places` top pixels that are evidence; a tie across the last place is shared."""
    last = ordered[len(ordered) - places]
    above = len(ordered) - int(np.searchsorted(ordered, last, side="right"))
    tied = len(ordered) - above - int(np.searchsorted(ordered, last, side="left"))
    evidence_above = len(evidence) - int(np.searchsorted(evidence, last, side="right"))
    evidence_tied = len(evidence) - evidence_above - int(np.searchsorted(evidence, last, side="left"))
    return (evidence_above + evidence_tied * (places - above) / tied) / places
