"""Means, intervals and tests whose unit is the patient, not the sample.

A bootstrap draws whole patients (clusters) with replacement. The draws depend on the seed and on the
number of patients alone, so every method and every null control that is scored on the same samples meets
the same draws: differences between rows are never differences between draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from medfocus_bench.evaluation.protocol import CONFIDENCE, Settings
from medfocus_bench.geometry import BoolArray, FloatArray

IndexArray = npt.NDArray[np.intp]

Levels = Literal["lvlms and patients", "patients"]
"""Over which units an interval speaks: other patients alone, or other LVLMs as well."""

_BLOCK_CELLS = 500_000
_ROUNDING = 1e-12
"""Differences below this share of the largest value are rounding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its interval.

    `p_value`: of the hypothesis that the mean is 0, where the interval is over LVLMs and patients; that of a
    paired difference is below 0.05 just where its interval excludes 0. `by_lvlm`: the mean of each LVLM (of
    each kind of evidence) within; empty where LVLMs are not told apart.
    """

    mean: float
    low: float
    high: float
    p_value: float | None = None
    levels: Levels = "patients"
    by_lvlm: tuple[float, ...] = ()

    @property
    def spread(self) -> tuple[float, float] | None:
        """The least and the greatest mean of an LVLM; None unless there are several."""
        return (min(self.by_lvlm), max(self.by_lvlm)) if len(self.by_lvlm) > 1 else None


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """The sums of one group of samples by patient, which is all that a bootstrap of its mean needs.

    `clusters` (k): the patients in the group; `sums` (k, m): their scores added up; `counts` (k).
    """

    clusters: IndexArray
    sums: FloatArray
    counts: FloatArray

    @classmethod
    def of(cls, scores: FloatArray, cluster_of: IndexArray, members: BoolArray) -> Cell:
        """From scores (n, m), the patient of each sample (n) and the members of the group (n)."""
        clusters, position = np.unique(cluster_of[members], return_inverse=True)
        sums = np.zeros((len(clusters), scores.shape[1]))
        np.add.at(sums, position, scores[members])
        return cls(clusters, sums, np.bincount(position, minlength=len(clusters)).astype(np.float64))

    def mean(self) -> FloatArray:
        return np.asarray(self.sums.sum(0) / self.counts.sum())

    def resampled(self, draws: FloatArray) -> FloatArray:
        """Means (r, m) under r draws (r, clusters); NaN where no patient of the group was drawn."""
        weights = draws[:, self.clusters]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ self.sums) / (weights @ self.counts)[:, None])

    def without(self, patients: IndexArray) -> FloatArray:
        """Means (p, m) without each of p patients; NaN where it is the only one."""
        place = np.searchsorted(patients, self.clusters)
        sums = np.repeat(self.sums.sum(0)[None], len(patients), axis=0)
        counts = np.full(len(patients), self.counts.sum())
        sums[place] -= self.sums
        counts[place] -= self.counts
        alone = counts == 0
        counts[alone] = 1.0
        return np.asarray(np.where(alone[:, None], np.nan, sums / counts[:, None]))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A cell with its weight in a mean, its LVLM and that one's kind of evidence; None: not told apart."""

    cell: Cell
    weight: float
    lvlm: int | None = None
    kind: int = 0


def mean_of(parts: Sequence[Part]) -> FloatArray:
    """The weighted mean of the cells' means, (m,)."""
    return np.asarray(sum(part.weight * part.cell.mean() for part in parts))


def patients_of(parts: Sequence[Part]) -> IndexArray:
    """The distinct patients of all cells, ascending."""
    return np.unique(np.concatenate([part.cell.clusters for part in parts]))


def patient_intervals(
    groups: Sequence[Sequence[Part]],
    clusters: int,
    settings: Settings,
    *,
    confidence: float = CONFIDENCE,
) -> list[list[Interval]]:
    """For each group its m means with intervals over patients: a bootstrap, bias-corrected and accelerated.

    The mean of a group is the weighted mean of its cells' means; in a resample, of those cells of which a
    patient was drawn. Resamples with no patient of the group do not count; if that is all of them, or if
    there is one patient, both ends are the mean. Memory does not grow with the number of samples.

    The ends are those of BCa (Efron 1987), the acceleration from a jackknife over patients. For n patients
    their normal quantile is widened to that of Student's variable with n - 1 degrees of freedom times
    sqrt(n / (n - 1)), as Hesterberg (2015, section 3.2) does for percentiles.
    """
    if not groups:
        return []
    resamples, metrics = settings.resamples, groups[0][0].cell.sums.shape[1]
    replicates = np.empty((len(groups), metrics, resamples))
    cells = list({id(part.cell): part.cell for group in groups for part in group}.values())
    row_of = {id(cell): row for row, cell in enumerate(cells)}
    weights = [np.array([part.weight for part in group]) for group in groups]
    block = max(1, _BLOCK_CELLS // max(clusters, len(cells) * metrics))
    for start, draws in _draws(clusters, settings, block):
        means = np.stack([cell.resampled(draws) for cell in cells])
        for number, group in enumerate(groups):
            of_group = means[[row_of[id(part.cell)] for part in group]]
            replicates[number, :, start : start + len(draws)] = _mean_of_present(of_group, weights[number]).T
    return [
        _accelerated(group, replicate, weight, confidence)
        for group, replicate, weight in zip(groups, replicates, weights, strict=True)
    ]


def _mean_of_present(means: FloatArray, weights: FloatArray) -> FloatArray:
    """The weighted mean over the first axis of what is not NaN."""
    if len(means) == 1:
        return np.asarray(means[0])
    present = ~np.isnan(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.tensordot(weights, np.where(present, means, 0.0), axes=1)
        return np.asarray(total / np.tensordot(weights, present, axes=1))


def _accelerated(
    group: Sequence[Part], replicate: FloatArray, weights: FloatArray, confidence: float
) -> list[Interval]:
    """The intervals of one group from its replicates (m, r), which are sorted in place."""
    mean, patients = mean_of(group), patients_of(group)
    drawn = replicate[:, ~np.isnan(replicate).any(axis=0)]
    if not drawn.size or len(patients) < 2:
        return [Interval(value, value, value) for value in mean.tolist()]
    drawn.sort(axis=1)
    left_out = np.stack([part.cell.without(patients) for part in group])
    acceleration = _acceleration(_mean_of_present(left_out, weights))
    bias = ndtri(_share_below(drawn, mean))
    degrees = len(patients) - 1
    stretch = np.sqrt(len(patients) / degrees)
    quantile = -stretch * stdtrit(degrees, (1 - confidence) / 2)
    low, high = (
        _quantiles(drawn, ndtr(bias + _divided(bias + z, 1 - acceleration * (bias + z))))
        for z in (-quantile, quantile)
    )
    rows = zip(*(column.tolist() for column in (mean, low, high)), strict=True)
    return [Interval(*row) for row in rows]


def _acceleration(left_out: FloatArray) -> FloatArray:
    """Of the jackknife means (patients, m): a sixth of their skewness, (m,)."""
    apart = left_out.mean(axis=0) - left_out
    squares = (apart**2).sum(axis=0)
    return np.asarray((apart**3).sum(axis=0) / np.where(squares > 0, 6 * squares**1.5, 1.0))


def _share_below(ordered: FloatArray, value: FloatArray) -> FloatArray:
    """Of each row's replicates (m, r) the share below its value (m,), ties half; never 0 nor 1."""
    apart = ordered - value[:, None]
    rounding = _ROUNDING * np.abs(ordered).max(axis=1, keepdims=True)
    below = (apart < -rounding).sum(axis=1) + (np.abs(apart) <= rounding).sum(axis=1) / 2
    count = ordered.shape[1]
    return np.asarray(np.clip(below / count, 0.5 / count, 1 - 0.5 / count))


def _divided(value: FloatArray, by: FloatArray) -> FloatArray:
    """Beyond its pole the correction of BCa is not defined: there the outermost replicate is taken."""
    return np.asarray(value / np.maximum(by, 1e-6))


def _quantiles(ordered: FloatArray, levels: FloatArray) -> FloatArray:
    """Of each row (m, r), ascending, the quantile at its level (m,), linear between replicates."""
    place = levels * (ordered.shape[1] - 1)
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, ordered.shape[1] - 1)
    rows = np.arange(len(ordered))
    low, high = ordered[rows, below], ordered[rows, above]
    return np.asarray(low + (place - below) * (high - low))


def _draws(clusters: int, settings: Settings, block: int) -> Iterator[tuple[int, FloatArray]]:
    """Blocks of resamples: how often each patient was drawn, (block, clusters), with their first number.

    The integers drawn are one stream: they do not depend on the block.
    """
    rng = np.random.default_rng(settings.seed)
    for start in range(0, settings.resamples, block):
        rows = min(block, settings.resamples - start)
        drawn = rng.integers(clusters, size=(rows, clusters), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * np.int32(clusters)
        counts = np.bincount(drawn.ravel(), minlength=rows * clusters)
        yield start, counts.reshape(rows, clusters).astype(np.float64)


def sign_flip_p_value(contributions: FloatArray, settings: Settings) -> float:
    """Two-sided p-value of a paired difference: exchanging the two methods patient by patient.

    `contributions` (clusters): what each patient adds to the difference. Under the null hypothesis their
    signs are arbitrary. There are as many exchanges as resamples; the smallest value possible is
    1 / (resamples + 1).
    """
    rng = np.random.default_rng((settings.seed, 1))
    permutations = settings.resamples
    observed = abs(float(contributions.sum()))
    tolerance = 1e-12 * float(np.abs(contributions).sum())
    extreme, done = 0, 0
    block = max(1, _BLOCK_CELLS // max(len(contributions), 1))
    while done < permutations:
        rows = min(block, permutations - done)
        signs = rng.integers(2, size=(rows, len(contributions)), dtype=np.int8).astype(np.float64) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ contributions) >= observed - tolerance))
        done += rows
    return (extreme + 1) / (permutations + 1)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm's step-down correction of p-values (n,): adjusted ones, in the order given."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1.0, np.arange(len(values), 0, -1) * values[order])
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted
