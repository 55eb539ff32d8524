"""Means, intervals and tests whose unit is the patient, not the sample.

A bootstrap draws whole patients (clusters) with replacement. The draws depend on the seed and on the
number of patients alone, so every method and every null control that is scored on the same samples meets
the same draws: differences between rows are never differences between draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medfocus_bench.evaluation.protocol import CONFIDENCE, Settings
from medfocus_bench.geometry import BoolArray, FloatArray

IndexArray = npt.NDArray[np.intp]

_BLOCK_CELLS = 500_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its percentile interval."""

    mean: float
    low: float
    high: float


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


def intervals(
    groups: Sequence[Sequence[Cell]],
    clusters: int,
    settings: Settings,
    *,
    confidence: float = CONFIDENCE,
) -> list[list[Interval]]:
    """For each group its m means with percentile intervals.

    The mean of a group of several cells is the mean of their means (macro); in a resample, of those cells
    of which a patient was drawn. Resamples with no patient of the group do not count; if that is all of them,
    both ends are the mean. Memory does not grow with the number of samples.
    """
    if not groups:
        return []
    resamples, metrics = settings.resamples, groups[0][0].sums.shape[1]
    replicates = np.empty((len(groups), metrics, resamples))
    cells = list({id(cell): cell for group in groups for cell in group}.values())
    row_of = {id(cell): row for row, cell in enumerate(cells)}
    block = max(1, _BLOCK_CELLS // max(clusters, len(cells) * metrics))
    for start, draws in _draws(clusters, settings, block):
        means = np.stack([cell.resampled(draws) for cell in cells])
        for number, group in enumerate(groups):
            of_group = means[[row_of[id(cell)] for cell in group]]
            replicates[number, :, start : start + len(draws)] = _mean_of_drawn(of_group).T
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    result: list[list[Interval]] = []
    for group, replicate in zip(groups, replicates, strict=True):
        mean = np.mean([cell.mean() for cell in group], axis=0)
        drawn = replicate[:, ~np.isnan(replicate).any(axis=0)]
        low, high = np.quantile(drawn, ends, axis=1) if drawn.size else (mean, mean)
        result.append([Interval(*map(float, row)) for row in zip(mean, low, high, strict=True)])
    return result


def _mean_of_drawn(means: FloatArray) -> FloatArray:
    if len(means) == 1:
        return np.asarray(means[0])
    present = ~np.isnan(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(present, means, 0.0).sum(0) / present.sum(0))


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
