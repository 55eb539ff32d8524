"""Simulations: how often the intervals hold a planted truth, and how often comparisons cry wolf.

Every column of the values is one trial, so that hundreds of trials are one call. LVLMs and patients are drawn
anew in each; which patients a LVLM is asked about is drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtr

from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.statistics import holm

TRIALS = 2000
KINDS = ("lesion", "spurious")
SHARE_ASKED = 0.7
"""Of the patients, those on whom an LVLM answers so that the filter lets it pass."""

QUICK = Settings(resamples=10_000)
"""Intervals over LVLMs and patients take none of the resamples; they bound p-values from below."""

SHAPES = ("normal", "skewed", "bounded")
SPREADS = {"none": 0.0, "as patients": 0.05, "dominant": 0.2}
"""Standard deviation between LVLMs, where that of an LVLM's mean over 60 patients is 0.05 or so."""


@dataclass(frozen=True)
class One:
    patient: int
    lvlm: int
    evidence: str
    source: str = "phantom"


def asked(lvlms, patients, rng):
    """One sample for each patient of each LVLM, of which the first half is of the first kind."""
    return [
        One(patient, lvlm, KINDS[lvlm * 2 // lvlms])
        for lvlm in range(lvlms)
        for patient in range(patients)
        if rng.random() < SHARE_ASKED
    ]


def planted(shape, samples, spread, rng, trials=TRIALS):
    """Values (n, trials) and their expectation over LVLMs and patients.

    Half of the variance of the patients is shared by the LVLMs. "bounded" is as evidence AP: 0 where the
    method misses, as it does on two patients of five, and up to 1 elsewhere.
    """
    patient_of = np.array([sample.patient for sample in samples])
    lvlm_of = np.array([sample.lvlm for sample in samples])
    patients, lvlms = patient_of.max() + 1, lvlm_of.max() + 1
    latent = rng.normal(size=(patients, trials))[patient_of] + rng.normal(size=(len(samples), trials))
    latent /= np.sqrt(2)
    if shape == "bounded":
        total = 0.24 / max(spread, 1e-6) ** 2 - 1
        hits = rng.beta(0.6 * total, 0.4 * total, size=(lvlms, trials))
        above = 1 - (1 - ndtr(latent)) / hits[lvlm_of]  # uniform where it is positive: the hits
        return np.sqrt(np.maximum(above, 0.0)), 0.6 * 2 / 3
    if shape == "skewed":
        latent = np.exp(0.6 * latent) - np.exp(0.18)
    return 0.5 + 0.35 * latent + spread * rng.normal(size=(lvlms, trials))[lvlm_of], 0.5


def held(intervals, truth):
    """The share of intervals that hold the truth."""
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


def coverage(shape, spread, lvlms, patients, trials=TRIALS):
    """Of the headline and of the slice of one kind of evidence."""
    rng = np.random.default_rng((lvlms, patients))
    samples = asked(lvlms, patients, rng)
    values, truth = planted(shape, samples, SPREADS[spread], rng, trials)
    groups = Groups.of(samples)
    kind = np.array([sample.evidence == KINDS[0] for sample in samples])
    found = groups.means(values, [groups.macro(), groups.macro(kind)], QUICK)
    return [held(one, truth) for one in found]


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("lvlms", "patients"), [(4, 25), (4, 60), (4, 300), (6, 60), (12, 60)])
def test_intervals_over_lvlms_and_patients_hold_the_truth_in_95_of_100(lvlms, patients, shape, spread):
    """Two kinds of evidence. The slice of a kind with two LVLMs has one degree of freedom: too few."""
    headline, of_kind = coverage(shape, spread, lvlms, patients)
    assert 0.93 <= headline <= 0.97
    low, high = (0.91, 0.98) if lvlms == 4 else (0.93, 0.97)
    assert low <= of_kind <= high


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("patients", [20, 45, 60, 300])
def test_intervals_over_patients_hold_the_truth_in_95_of_100(patients, shape):
    """The slice of one LVLM, of which every third patient has two samples."""
    rng = np.random.default_rng(patients)
    samples = [
        One(patient, 0, KINDS[0]) for patient in range(patients) for _ in range(1 + (patient % 3 == 0))
    ]
    values, truth = planted(shape, samples, 0.0, rng, 1000)
    groups = Groups.of(samples)
    (found,) = groups.means(values, [groups.macro()], Settings(resamples=2000))
    assert 0.93 <= held(found, truth) <= 0.97


@pytest.mark.parametrize("spread", ["none", "dominant"])
def test_percentiles_of_resampled_lvlms_and_patients_would_not(spread):
    """Owen's pigeonhole bootstrap of four LVLMs, two of a kind: far too rarely where the LVLMs differ."""
    rng = np.random.default_rng(1)
    samples = asked(4, 60, rng)
    values, truth = planted("normal", samples, SPREADS[spread], rng, 300)
    lvlm_of, patient_of = (
        np.array([getattr(one, field) for one in samples]) for field in ("lvlm", "patient")
    )
    means = np.empty((400, 300))
    for draw in means:
        times = np.bincount(rng.integers(60, size=60), minlength=60)[patient_of]
        chosen = rng.integers(2, size=4) + np.array([0, 0, 2, 2])
        each = [
            np.average(values[lvlm_of == lvlm], axis=0, weights=times[lvlm_of == lvlm]) for lvlm in chosen
        ]
        draw[:] = np.mean(each, axis=0)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    share = np.mean((low <= truth) & (truth <= high))
    assert share < 0.9 if spread == "dominant" else share > 0.93


@pytest.mark.parametrize("spread", SPREADS)
def test_holms_correction_keeps_its_level_with_four_lvlms(spread):
    """Five methods, ten pairs: equally good on all LVLMs there may be, some better on these four."""
    rng = np.random.default_rng(2)
    samples = asked(4, 60, rng)
    groups, pairs, trials = Groups.of(samples), list(combinations(range(5), 2)), 1500
    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / trials)
    common = planted("normal", samples, 0.1, rng, trials)[0]
    methods = [common + planted("skewed", samples, SPREADS[spread], rng, trials)[0] for _ in range(5)]
    found = [groups.means(methods[a] - methods[b], [groups.macro()], QUICK, paired=True)[0] for a, b in pairs]
    p_values = np.array([[one.p_value for one in of_pair] for of_pair in found])
    assert np.mean([holm(of_trial).min() <= 0.05 for of_trial in p_values.T]) <= limit
    assert np.mean(p_values <= 0.05) <= limit
    excluded = [[not one.low <= 0 <= one.high for one in of_pair] for of_pair in found]
    assert np.array_equal(p_values < 0.05, excluded)


@pytest.mark.parametrize(
    ("lvlms", "spread", "least"), [(4, "none", 0.75), (4, "as patients", 0.3), (12, "as patients", 0.9)]
)
def test_a_difference_of_a_tenth_is_found(lvlms, spread, least):
    """The power of a single comparison: with four LVLMs that differ as much as their patients, little."""
    rng = np.random.default_rng(3)
    samples = asked(lvlms, 300, rng)
    first, second = (planted("bounded", samples, SPREADS[spread], rng, 1000)[0] for _ in range(2))
    groups = Groups.of(samples)
    (found,) = groups.means(first - second + 0.1, [groups.macro()], QUICK, paired=True)
    assert np.mean([one.p_value <= 0.05 for one in found]) >= least
