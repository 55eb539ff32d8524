"""Bootstrap by patient, its p-value, Holm."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from scipy.stats import bootstrap

from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.statistics import (
    _BLOCK_CELLS,
    Cell,
    Part,
    _draws,
    holm,
    patient_intervals,
    sign_flip_p_value,
)

QUICK = Settings(resamples=2000)


def cell(scores, clusters, members=None):
    scores = np.asarray(scores, dtype=float).reshape(len(clusters), -1)
    members = np.ones(len(clusters), dtype=bool) if members is None else members
    return Cell.of(scores, np.asarray(clusters), members)


def intervals(groups, clusters, settings):
    """Of groups of cells that weigh the same."""
    return patient_intervals(
        [[Part(cell, 1 / len(group)) for cell in group] for group in groups], clusters, settings
    )


def test_the_mean_is_over_samples_not_over_patients():
    ((found,),) = intervals([[cell([1, 1, 1, 0], [0, 0, 0, 1])]], 2, QUICK)
    assert found.mean == 0.75


def test_the_interval_is_scipys_but_for_the_widening_for_few_patients():
    """Of 400 patients that is less than the noise of the resamples."""
    scores = np.random.default_rng(0).exponential(size=400)
    ((found,),) = intervals([[cell(scores, range(400))]], 400, Settings(resamples=20_000))
    peer = bootstrap((scores,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    assert (found.low, found.high) == pytest.approx(tuple(peer.confidence_interval), abs=0.004)
    plain = bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert found.high > plain.confidence_interval.high + 0.001, "the skewness is not accounted for"


def test_few_patients_widen_the_interval_as_students_quantiles_do():
    scores = np.random.default_rng(3).normal(size=12)
    ((found,),) = intervals([[cell(scores, range(12))]], 12, Settings(resamples=20_000))
    half = stats.t.ppf(0.975, 11) * scores.std(ddof=1) / np.sqrt(12)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)


def test_repeated_samples_of_a_patient_do_not_narrow_the_interval():
    """A bootstrap of samples would take ten copies of each patient for ten patients."""
    scores = np.random.default_rng(1).normal(size=50)
    ((single,),) = intervals([[cell(scores, range(50))]], 50, QUICK)
    ((copied,),) = intervals([[cell(np.repeat(scores, 10), np.repeat(range(50), 10))]], 50, QUICK)
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))


def test_methods_on_the_same_patients_meet_the_same_draws():
    """Trap: two rows whose every sample differs by 0.1 differ by 0.1 at both ends of the interval."""
    scores = np.random.default_rng(3).random(60)
    ((first,),) = intervals([[cell(scores, range(60))]], 60, QUICK)
    ((second,),) = intervals([[cell(scores + 0.1, range(60))]], 60, QUICK)
    assert (second.low - first.low, second.high - first.high) == pytest.approx((0.1, 0.1))


def test_macro_weighs_cells_equally_whatever_their_size():
    """Trap 34: pooled, the large cell would drown the small one."""
    scores, clusters = np.array([1.0] * 90 + [0.0] * 10), np.arange(100)
    large, small = clusters < 90, clusters >= 90
    cells = [cell(scores, clusters, large), cell(scores, clusters, small)]
    ((macro,), (pooled,)) = intervals([cells, [cell(scores, clusters)]], 100, QUICK)
    assert (macro.mean, pooled.mean) == (0.5, 0.9)
    assert (macro.low, macro.high) == (0.5, 0.5)


def test_a_cell_of_one_patient_is_left_out_of_the_resamples_that_miss_it():
    """Three in ten resamples miss it: counted as zero there, it would pull the mean down to a half."""
    scores, clusters = np.ones(4), np.arange(4)
    cells = [cell(scores, clusters, clusters < 3), cell(scores, clusters, clusters == 3)]
    ((found,),) = intervals([cells], 4, QUICK)
    assert (found.low, found.mean, found.high) == (1, 1, 1)


def test_resamples_are_the_same_whatever_the_block_size(monkeypatch):
    one = intervals([[cell(np.arange(30.0), range(30))]], 30, QUICK)
    monkeypatch.setattr("medfocus_bench.evaluation.statistics._BLOCK_CELLS", 700)
    assert intervals([[cell(np.arange(30.0), range(30))]], 30, QUICK) == one


@pytest.mark.parametrize("block_cells", [31, 700, 10**6])
def test_the_patients_drawn_are_the_same_whatever_the_block_size(block_cells):
    whole = np.concatenate([draws for _, draws in _draws(31, Settings(resamples=50), 50)])
    parts = [draws for _, draws in _draws(31, Settings(resamples=50), max(1, block_cells // 31))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_memory_does_not_grow_with_the_number_of_cells():
    """A block of resamples holds no more means of cells than it may hold draws."""
    clusters = np.arange(40)
    cells = [cell(np.ones((40, 50)), clusters, clusters % 40 == number) for number in range(40)]
    tracemalloc.start()
    intervals([[one] for one in cells[:1]] + [cells], 40, QUICK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (6 * _BLOCK_CELLS + 4 * 2 * 50 * QUICK.resamples)


def test_a_group_that_no_resample_drew_has_its_mean_at_both_ends():
    scores, clusters = np.arange(5000.0), np.arange(5000)
    (found,), (whole,) = intervals(
        [[cell(scores, clusters, clusters == 7)], [cell(scores, clusters)]], 5000, Settings(resamples=10)
    )
    assert (found.mean, found.low, found.high) == (7, 7, 7)
    assert whole.low < whole.mean < whole.high


def test_a_patient_who_is_alone_in_a_cell_is_left_out_of_the_jackknife_there():
    one = cell([1.0, 3.0, 5.0], [0, 0, 1])
    assert one.without(np.arange(3)).ravel().tolist() == [5.0, 2.0, 3.0]
    lonely = cell([2.0], [1])
    assert np.isnan(lonely.without(np.arange(2))).ravel().tolist() == [False, True]


def test_the_p_value_of_no_difference_is_one():
    assert sign_flip_p_value(np.zeros(30), QUICK) == 1.0


def test_the_p_value_of_a_constant_difference_is_the_smallest_possible():
    assert sign_flip_p_value(np.full(40, 0.1), QUICK) == pytest.approx(1 / 2001)


def test_p_values_under_the_null_are_uniform():
    rng = np.random.default_rng(4)
    values = [sign_flip_p_value(rng.normal(size=30), Settings(resamples=300)) for _ in range(400)]
    assert 0.02 <= np.mean(np.array(values) <= 0.05) <= 0.09


def test_the_p_value_agrees_with_all_exchanges():
    contributions = np.array([0.5, -0.1, 0.3, 0.2, -0.05, 0.4, 0.1, 0.25])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    exact = np.mean(np.abs(signs @ contributions) >= abs(contributions.sum()) - 1e-12)
    assert sign_flip_p_value(contributions, Settings(resamples=20_000)) == pytest.approx(exact, abs=0.006)


def test_the_interval_nearly_always_excludes_zero_where_the_p_value_is_below_a_twentieth():
    rng = np.random.default_rng(4)
    scores = rng.laplace(size=(60, 200)) + np.linspace(-0.9, 0.9, 200)
    (found,) = intervals([[cell(scores, range(60))]], 60, QUICK)
    tested = [sign_flip_p_value(column / 60, QUICK) < 0.05 for column in scores.T]
    excluded = [not one.low <= 0 <= one.high for one in found]
    assert 60 < sum(tested) < 140
    assert np.mean(np.equal(tested, excluded)) > 0.95


def test_holm_steps_down_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@pytest.mark.parametrize("bad", [{"protocol": "mine"}, {"resamples": 9}, {"seed": -1}])
def test_settings_that_make_no_sense_are_an_error(bad):
    with pytest.raises(InputError):
        Settings(**bad)


def test_of_no_group_there_are_no_intervals():
    """A causal filter in which nothing is grounded has a table without rows."""
    assert patient_intervals([], 0, Settings()) == []
