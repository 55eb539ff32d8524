"""Scores of a map as a ranking of pixels: no threshold, no boxes.

Throughout, `values` are the pixels of a low-passed map, n of them count, and P of those are positive, the
evidence. v(i) is the value of pixel i. Pixels of equal value are one group: no score depends on the order in
which they are stored, and none changes when all values are raised by a monotone function, but for the mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import BoolArray

Values = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Threshold-free scores of one map; `docs/scores.md` gives the formulas."""

    average_precision: float
    evidence_ap: float
    auroc: float
    relevance_mass: float
    relevance_rank: float
    pointing: float


def ranking_scores(values: Values, positive: BoolArray, counted: BoolArray | None = None) -> RankingScores:
    """All ranking scores from one sort.

    `values`, `positive` and `counted` (default: all pixels) have one shape; `positive` has a true pixel, and
    all of its pixels count.

    average_precision: mean over the positive pixels of (positive pixels ranked at least as high) / (pixels
    ranked at least as high), ties grouped (as in scikit-learn). evidence_ap: that, corrected for chance, see
    `corrected_precision`. auroc: ties count half; 0.5 where nothing is negative. relevance_mass: negative
    values count as zero; 0 where no value is positive. relevance_rank: the P-th place may fall into a tie,
    whose pixels then share the places left. pointing: the pixels at the maximum share one vote.
    """
    ordered = np.sort(values if counted is None else values[counted], axis=None)
    evidence = np.sort(values[positive])
    total, hits = len(ordered), len(evidence)
    places = total - np.searchsorted(ordered, evidence, side="left")
    found = hits - np.searchsorted(evidence, evidence, side="left")

    mass = float(np.sum(ordered, where=ordered > 0, dtype=np.float64))
    inside = float(np.sum(evidence, where=evidence > 0, dtype=np.float64))
    return RankingScores(
        average_precision=float(np.mean(found / places)),
        evidence_ap=corrected_precision(places, found, ordered),
        auroc=_auroc(ordered, evidence) if total > hits else 0.5,
        relevance_mass=inside / mass if mass > 0 else 0.0,
        relevance_rank=_share_of_top(ordered, evidence, hits),
        pointing=_share_of_top(ordered, evidence, 1),
    )


def corrected_precision(places: Places, found: Places, ordered: Values) -> float:
    """Average precision above that of a random order, over the most that it can be above: 1 at best.

    Args:
        places: (P,), for each positive pixel i, N(i), the number of pixels j with v(j) >= v(i), i included.
        found: (P,), how many of those are positive, i included.
        ordered: (n,), the ascending values of all pixels that count.

    AP = mean(found / N). Were the other P - 1 positive pixels anywhere among the other n - 1, a share
    p' = (P - 1) / (n - 1) of the other N(i) - 1 that are ranked at least as high would be positive, so that
    the expectation is E = p' + (1 - p') mean(1 / N), exact with ties. The score is (AP - E) / (1 - E). It is
    formed from whole numbers, (found - 1) (n - 1) - (P - 1) (N - 1), which are 0 for a map that treats all
    pixels alike, and not merely nearly so.

    A single positive pixel has no other: its 1 / N is held against the mean of that over all places. Where
    nothing is negative, nothing can be told from chance: 0.
    """
    total, hits = len(ordered), len(places)
    if total == hits:
        return 0.0
    if hits == 1:
        chances = 1 / (total - np.searchsorted(ordered, ordered, side="left"))
        return float(np.mean(1 / places[0] - chances) / np.mean(1 - chances))
    above = ((found - 1) * (total - 1) - (hits - 1) * (places - 1)) / places
    most = (total - hits) * (places - 1) / places
    return float(above.sum() / most.sum())


def _auroc(ordered: Values, evidence: Values) -> float:
    below, up_to = (np.searchsorted(ordered, evidence, side=side) for side in ("left", "right"))
    evidence_below, evidence_up_to = (
        np.searchsorted(evidence, evidence, side=side) for side in ("left", "right")
    )
    others_below = below - evidence_below
    others_tied = up_to - evidence_up_to - others_below
    return float(np.mean(others_below + 0.5 * others_tied) / (len(ordered) - len(evidence)))


def _share_of_top(ordered: Values, evidence: Values, places: int) -> float:
    """Share of the `places` top pixels that are evidence; a tie across the last place is shared."""
    last = ordered[len(ordered) - places]
    above = len(ordered) - int(np.searchsorted(ordered, last, side="right"))
    tied = len(ordered) - above - int(np.searchsorted(ordered, last, side="left"))
    evidence_above = len(evidence) - int(np.searchsorted(evidence, last, side="right"))
    evidence_tied = len(evidence) - evidence_above - int(np.searchsorted(evidence, last, side="left"))
    return (evidence_above + evidence_tied * (places - above) / tied) / places
