"""Intervals over LVLMs and patients: a mean for other LVLMs, of which only a few were at hand.

Resampling LVLMs (Owen 2007, "The pigeonhole bootstrap") needs more of them than there are: of two LVLMs of a
kind, half of the resamples hold one alone, and percentile intervals of four LVLMs hold the truth in 75 to 85
of a hundred cases where LVLMs differ. The components of variance of that bootstrap are estimated here in
closed form instead, and the few LVLMs are paid for with Student's quantiles.

The model: the mean of LVLM l of kind k is mu(k) + a(l) + what its patients add. The a(l) are independent, of
one variance for all kinds; patients are crossed with LVLMs, so that what two LVLMs owe the same patients is
shared. With weights w(l), estimate = sum of w(l) mean(l), and its variance is S + B:

* B = (sum of w(l)^2) s^2, where s^2 is the variance of the LVLMs' means around the mean of their kind, with
  d = LVLMs - kinds degrees of freedom: it holds the a(l) and what patients add to one LVLM alone;
* S = what patients add to several LVLMs at once: the variance of the estimate over patients, less the part
  of it that B holds already. From the influence of each patient on each LVLM's mean, of ratio means
  linearised: (its sum - mean its count) / all counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, ndtr, ndtri, stdtrit

from medfocus_bench.evaluation.protocol import CONFIDENCE
from medfocus_bench.evaluation.statistics import IndexArray, Interval, Part, mean_of, patients_of
from medfocus_bench.geometry import FloatArray

RELIEF = 0.4
"""How far the patients' share S / (S + B) raises the degrees of freedom in the intervals of scores.

Without it they hold the truth too often (.98 of the time with four LVLMs, .99 with two); the value is
chosen by simulation, see `tests/evaluation/test_coverage.py`.
"""

_NODES = 160
_BISECTIONS = 40
_BLOCK_CELLS = 2_000_000
_ROUNDING = 1e-12


def two_level_intervals(
    parts: Sequence[Part], *, paired: bool = False, least_p: float = 0.0, confidence: float = CONFIDENCE
) -> list[Interval] | None:
    """The m means of one group with intervals over LVLMs and patients; None unless a kind has several LVLMs.

    Estimate less truth is held against sqrt(S) Z + sqrt(B) t, the sum of a normal variable and
    of Student's with d degrees of freedom (Behrens 1929, Fisher 1935), whose level is kept at every d. In the
    intervals of scores d is d (1 + RELIEF S / (S + B)), which brings their coverage to 95 %. Differences of
    `paired` methods go without, since Holm's correction reads far tails: their interval excludes 0 just where
    their p-value is below 1 - confidence. No p-value is below `least_p`.
    """
    units = by_lvlm(parts)
    kinds = _kinds(units)
    degrees = len(units) - len(kinds)
    if degrees == 0:
        return None
    means = np.array([_mean_of_unit(unit) for unit in units])
    estimate = mean_of(parts)
    shared, between = _variances(units, kinds, means, patients_of(parts).size)
    freedom = np.full(len(estimate), float(degrees))
    tested = np.where(np.abs(estimate) > _ROUNDING * np.abs(means).max(axis=0), estimate, 0.0)
    p_values = np.maximum(two_sided_p(tested, shared, between, freedom), least_p)
    if not paired:
        total = np.maximum(shared + between, np.finfo(np.float64).tiny)
        freedom = freedom * (1 + RELIEF * shared / total)
    half = half_width(shared, between, freedom, confidence)
    columns = (column.tolist() for column in (estimate, estimate - half, estimate + half, p_values))
    return [
        Interval(mean, low, high, p_value, "lvlms and patients", tuple(each))
        for mean, low, high, p_value, each in zip(*columns, means.T.tolist(), strict=True)
    ]


def two_sided_p(
    value: FloatArray, shared: FloatArray, between: FloatArray, freedom: FloatArray
) -> FloatArray:
    """P(|sqrt(shared) Z + sqrt(between) t| >= |value|) of arrays (m,); 1 at 0, whatever the variances.

    Student's variable is a normal one over the root of a mean square: the integral runs over the logarithm of
    that one, on equal steps.
    """
    away = np.abs(value)
    deviation, weight = _mixture(shared, between, freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        tails = 2 * (weight * ndtr(-away[:, None] / deviation)).sum(axis=1)
    return np.asarray(np.where(away > 0, np.where(shared + between > 0, tails, 0.0), 1.0))


def half_width(
    shared: FloatArray, between: FloatArray, freedom: FloatArray, confidence: float = CONFIDENCE
) -> FloatArray:
    """The value of which `two_sided_p` is 1 - confidence, (m,); 0 without any variance."""
    deviation, weight = _mixture(shared, between, freedom)
    outside = (1 - confidence) / 4
    low = np.zeros(len(shared))
    high = -np.sqrt(shared) * ndtri(outside) - np.sqrt(between) * stdtrit(freedom, outside)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = 2 * (weight * ndtr(-middle[:, None] / deviation)).sum(axis=1) > 1 - confidence
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def _mixture(shared: FloatArray, between: FloatArray, freedom: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The normal variables, by deviation, of which the sum is a mixture, and their weights: (m, nodes)."""
    least, most = float(freedom.min()), float(freedom.max())
    log_square = np.linspace(-42 / least, np.log(most + 40 + 12 * np.sqrt(most)), _NODES)
    half = freedom[:, None] / 2
    density = np.exp(log_square * half - np.exp(log_square) / 2 - half * np.log(2) - gammaln(half))
    variance = shared[:, None] + between[:, None] * freedom[:, None] * np.exp(-log_square)
    return np.sqrt(variance), density / density.sum(axis=1, keepdims=True)


def by_lvlm(parts: Sequence[Part]) -> list[list[Part]]:
    """The cells by LVLM, in order; none where LVLMs are not told apart."""
    units: dict[int, list[Part]] = {}
    for part in parts:
        if part.lvlm is not None:
            units.setdefault(part.lvlm, []).append(part)
    return list(units.values())


def lvlm_means(parts: Sequence[Part]) -> FloatArray:
    """The mean of each LVLM, (LVLMs, m), in order; (0, m) where LVLMs are not told apart."""
    means = [_mean_of_unit(unit) for unit in by_lvlm(parts)]
    return np.array(means).reshape(len(means), parts[0].cell.sums.shape[1])


def _kinds(units: Sequence[Sequence[Part]]) -> list[list[int]]:
    """The numbers of the LVLMs of each kind of evidence."""
    kinds: dict[int, list[int]] = {}
    for number, unit in enumerate(units):
        kinds.setdefault(unit[0].kind, []).append(number)
    return list(kinds.values())


def _weight(unit: Sequence[Part]) -> float:
    return sum(part.weight for part in unit)


def _mean_of_unit(unit: Sequence[Part]) -> FloatArray:
    return np.asarray(mean_of(unit) / _weight(unit))


def _variances(
    units: Sequence[Sequence[Part]], kinds: Sequence[Sequence[int]], means: FloatArray, patients: int
) -> tuple[FloatArray, FloatArray]:
    """S and B, (m,) each, from the LVLMs' means (l, m).

    Where LVLMs agree to the last digit B is 0, and all that patients add is in S. For n patients S is n - 1
    over n - 3 times as large, the variance of Student's variable with n - 1 degrees of freedom.
    """
    weights = np.array([_weight(unit) for unit in units])
    covariance = _covariance(units)
    degrees = len(units) - len(kinds)
    square, alone = np.zeros(means.shape[1]), np.zeros(means.shape[1])
    for members in kinds:
        count = len(members)
        if count == 1:
            continue
        within = covariance[:, members][:, :, members]
        own = np.trace(within, axis1=1, axis2=2) / count
        common = (within.sum(axis=(1, 2)) - count * own) / (count * (count - 1))
        square += (count - 1) / degrees * means[members].var(axis=0, ddof=1)
        alone += (count - 1) / degrees * (own - common)
    squares = float(weights @ weights)
    over_patients = np.einsum("a,mab,b->m", weights, covariance, weights)
    few = (patients - 1) / (patients - 3) if patients > 3 else 3.0
    agree = square <= (_ROUNDING * np.abs(means).max(axis=0)) ** 2
    shared = np.where(agree, over_patients, np.maximum(over_patients - squares * alone, 0.0))
    return few * shared, squares * np.where(agree, 0.0, square)


def _covariance(units: Sequence[Sequence[Part]]) -> FloatArray:
    """Of the LVLMs' means over patients, (m, l, l), a few of the m at a time."""
    patients = patients_of([part for unit in units for part in unit])
    metrics = units[0][0].cell.sums.shape[1]
    covariance = np.empty((metrics, len(units), len(units)))
    block = max(1, _BLOCK_CELLS // (len(units) * len(patients)))
    for start in range(0, metrics, block):
        columns = slice(start, start + block)
        influence = np.stack([_influence(unit, patients, columns) for unit in units])
        covariance[columns] = np.einsum("apm,bpm->mab", influence, influence, optimize=True)
    return covariance


def _influence(unit: Sequence[Part], patients: IndexArray, columns: slice) -> FloatArray:
    """How far each patient moves an LVLM's mean, (patients, m); their squares sum to its variance."""
    influence = np.zeros((len(patients), unit[0].cell.sums[:, columns].shape[1]))
    for part in unit:
        cell, share = part.cell, part.weight / _weight(unit)
        moved = cell.sums[:, columns] - cell.counts[:, None] * cell.mean()[columns]
        influence[np.searchsorted(patients, cell.clusters)] += moved * (share / cell.counts.sum())
    own = len(patients_of(unit))
    return influence * np.sqrt(own / (own - 1)) if own > 1 else influence
