"""Kendall's tau-b and its p by permutation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medfocus_bench.evaluation.rank_agreement import kendall

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=7)


@given(pairs)
def test_tau_is_that_of_scipy_and_ties_of_a_whole_list_have_none(both):
    first, second = zip(*both, strict=True)
    tau, p_value = kendall(first, second)
    expected = stats.kendalltau(first, second).statistic
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert (tau, p_value) == (None, None)
    else:
        assert tau == pytest.approx(expected)
        assert 0 < p_value <= 1


@pytest.mark.parametrize("count", [4, 7, 8])
def test_the_p_of_few_methods_is_exact(count):
    second = np.random.default_rng(count).permutation(count)
    _, p_value = kendall(range(count), second)
    assert p_value == pytest.approx(stats.kendalltau(range(count), second, method="exact").pvalue)


def test_the_p_of_more_methods_is_that_of_the_exact_distribution_to_the_error_of_its_draws():
    second = np.array([1, 0, 3, 2, 5, 7, 4, 6, 11, 8, 10, 9])
    _, p_value = kendall(range(12), second, draws=20_000)
    exact = stats.kendalltau(range(12), second, method="exact").pvalue
    assert p_value == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000) + 1e-4)
    assert kendall(range(12), second) == kendall(range(12), second)


def test_of_twelve_methods_a_tau_of_45_is_where_it_is_told_from_none():
    """As the reasons of the comparison with the paper say."""
    told = [2, 1, 0, 3, 4, 5, 11, 10, 9, 8, 7, 6]  # C - D = 30 of 66
    not_told = [2, 1, 0, 4, 3, 5, 11, 10, 9, 8, 7, 6]  # 28, the next
    for second, beyond in ((told, True), (not_told, False)):
        tau, p_value = kendall(range(12), second)
        assert (tau >= 0.45, p_value < 0.05) == (beyond, beyond)


def test_a_p_is_never_zero():
    tau, p_value = kendall(range(30), range(30), draws=1000)
    assert tau == 1
    assert p_value == pytest.approx(1 / 1001)
