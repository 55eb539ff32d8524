"""The distribution behind intervals over LVLMs and patients, and its variances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medfocus_bench.evaluation.statistics import Cell, Part
from medfocus_bench.evaluation.two_levels import half_width, two_level_intervals, two_sided_p

VALUES = np.array([0.3, 2.0, 15.0])


def of(value):
    return np.full(3, float(value))


@pytest.mark.parametrize("degrees", [1, 2, 10, 200])
def test_without_what_patients_share_it_is_students(degrees):
    p = two_sided_p(VALUES, of(0), of(4), of(degrees))
    assert p == pytest.approx(2 * stats.t.sf(VALUES / 2, degrees), rel=1e-5)
    assert half_width(of(0), of(4), of(degrees)) == pytest.approx(2 * stats.t.ppf(0.975, degrees), rel=1e-5)


def test_without_a_spread_between_lvlms_it_is_normal():
    assert two_sided_p(VALUES, of(4), of(0), of(2)) == pytest.approx(2 * stats.norm.sf(VALUES / 2))
    assert half_width(of(4), of(0), of(2)) == pytest.approx(2 * stats.norm.ppf(0.975))


def test_with_both_it_is_their_sum():
    rng = np.random.default_rng(0)
    drawn = np.abs(rng.normal(size=400_000) + 0.5 * rng.standard_t(2, size=400_000))
    assert half_width(of(1), of(0.25), of(2)) == pytest.approx(np.quantile(drawn, 0.95), rel=0.01)


def test_the_p_value_at_an_end_is_a_twentieth():
    half = half_width(of(1), np.array([0.1, 1, 10]), np.array([1.0, 2, 7]))
    assert two_sided_p(half, of(1), np.array([0.1, 1, 10]), np.array([1.0, 2, 7])) == pytest.approx(0.05)


def test_no_difference_has_a_p_of_one_and_a_constant_one_of_zero():
    assert two_sided_p(of(0), of(0), of(0), of(2)).tolist() == [1, 1, 1]
    assert two_sided_p(of(0.1), of(0), of(0), of(2)).tolist() == [0, 0, 0]
    assert half_width(of(0), of(0), of(2)).tolist() == [0, 0, 0]


def parts(values, kinds):
    """One part for each LVLM: its scores of all patients are a column of values."""
    everyone = np.arange(len(values))
    cells = [Cell.of(column[:, None], everyone, everyone >= 0) for column in values.T]
    shares = [1 / (len(set(kinds)) * kinds.count(kind)) for kind in kinds]
    return [
        Part(cell, share, n, kind)
        for n, (cell, share, kind) in enumerate(zip(cells, shares, kinds, strict=True))
    ]


def test_lvlms_that_agree_on_every_patient_leave_the_patients_alone():
    scores = np.random.default_rng(0).normal(size=(80, 1))
    (found,) = two_level_intervals(parts(np.repeat(scores, 4, axis=1), [0, 0, 1, 1]))
    error = scores.std(ddof=1) / np.sqrt(80) * np.sqrt(79 / 77)
    assert (found.high - found.low) / 2 == pytest.approx(error * stats.norm.ppf(0.975))


def test_patients_without_noise_leave_the_lvlms_alone():
    means = np.array([0.2, 0.4, 0.5, 0.6])
    (found,) = two_level_intervals(parts(np.tile(means, (50, 1)), [0, 0, 1, 1]))
    square = (0.02 + 0.005) / 2
    assert (found.high - found.low) / 2 == pytest.approx(
        stats.t.ppf(0.975, 2) * np.sqrt(square / 4), rel=1e-4
    )
    assert found.mean == pytest.approx(means.mean())
    assert found.by_lvlm == pytest.approx(tuple(means))


def test_lvlms_that_agree_by_chance_keep_the_interval_over_patients():
    """Each has noise of its own, and both have one mean: their spread says nothing."""
    noise = np.tile([0.1, -0.1, 0.3, -0.3], 20)
    (found,) = two_level_intervals(parts(np.stack([noise, -noise], axis=1), [0, 0]))
    assert found.high == pytest.approx(0, abs=1e-9)
    (found,) = two_level_intervals(parts(np.stack([noise, np.roll(noise, 2)], axis=1), [0, 0]))
    assert found.high > 0.01


def test_differences_between_kinds_of_evidence_are_no_spread_between_lvlms():
    near, far = ([0.2, 0.4, 0.5 + shift, 0.6 + shift] for shift in (0, 7))
    widths = []
    for means in (near, far):
        (found,) = two_level_intervals(parts(np.tile(means, (50, 1)), [0, 0, 1, 1]))
        widths.append(found.high - found.low)
    assert widths[0] == pytest.approx(widths[1])


def test_a_kind_with_one_lvlm_takes_the_spread_of_the_others():
    (found,) = two_level_intervals(parts(np.tile([0.2, 0.4, 0.9], (50, 1)), [0, 0, 1]))
    square = 0.02 * (2 / 16 + 1 / 4)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, 1) * np.sqrt(square), rel=1e-4)


def test_kinds_with_one_lvlm_each_have_no_interval_over_lvlms():
    assert two_level_intervals(parts(np.random.default_rng(0).normal(size=(50, 2)), [0, 1])) is None


def test_the_interval_of_one_score_does_not_depend_on_the_others(monkeypatch):
    rng = np.random.default_rng(0)
    everyone = np.arange(40)
    values = [rng.normal(size=(40, 7)) for _ in range(4)]

    def found(columns):
        cells = [Cell.of(each[:, columns], everyone, everyone >= 0) for each in values]
        return two_level_intervals([Part(cell, 0.25, n, n // 2) for n, cell in enumerate(cells)])

    whole = found(slice(None))
    monkeypatch.setattr("medfocus_bench.evaluation.two_levels._BLOCK_CELLS", 400)
    for number, one in enumerate(found(slice(None))):
        assert one == whole[number]
    alone = found([3])[0]
    assert (alone.low, alone.high) == pytest.approx((whole[3].low, whole[3].high), rel=1e-6)
