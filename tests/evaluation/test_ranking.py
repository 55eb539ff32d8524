"""Scores of a ranking: by hand, against scikit-learn, and against random orders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from medfocus_bench.evaluation.ranking import ranking_scores


def line(values, positive, counted=None):
    """One row of pixels; `positive` and `counted` as strings of 0 and 1."""
    region, counts = (
        None if flags is None else np.array([[flag == "1" for flag in flags]])
        for flags in (positive, counted)
    )
    return ranking_scores(np.array([values], dtype=np.float32), region, counts)


def exact(values, positive):
    """(AP - E) / (1 - E) as it is written, pixel by pixel."""
    values, positive = np.ravel(values), np.ravel(positive)
    total, hits = len(values), positive.sum()
    at_least = [(values >= values[pixel]) for pixel in np.flatnonzero(positive)]
    places = np.array([mask.sum() for mask in at_least])
    found = np.array([(mask & positive).sum() for mask in at_least])
    others = (hits - 1) / (total - 1)
    chance = others + (1 - others) * np.mean(1 / places)
    return (np.mean(found / places) - chance) / (1 - chance)


def random_case(seed, levels):
    rng = np.random.default_rng(seed)
    values = (rng.integers(levels, size=(20, 30)) - levels // 2).astype(np.float32)
    region = rng.random((20, 30)) < rng.uniform(0.02, 0.9)
    region.flat[:2], region.flat[2] = True, False
    return values, region


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([2, 5, 1000]))
def test_average_precision_and_auroc_agree_with_scikit_learn(seed, levels):
    """Ties grouped: with few levels nearly every pixel has an equal."""
    values, region = random_case(seed, levels)
    scores = ranking_scores(values, region)
    assert scores.average_precision == pytest.approx(average_precision_score(region.ravel(), values.ravel()))
    assert scores.auroc == pytest.approx(roc_auc_score(region.ravel(), values.ravel()))


def test_evidence_ap_of_four_pixels_by_hand():
    """p' = 1/3. Positive at places 1 and 3: AP = (1 + 2/3) / 2 and E = 1/3 + 2/3 (1 + 1/3) / 2."""
    scores = line([4, 3, 2, 1], "1010")
    assert scores.average_precision == pytest.approx(5 / 6)
    assert scores.evidence_ap == pytest.approx((5 / 6 - 7 / 9) / (1 - 7 / 9))
    assert line([4, 3, 2, 1], "1100").evidence_ap == pytest.approx(1)
    assert line([4, 3, 2, 1], "0011").evidence_ap == pytest.approx((5 / 12 - 19 / 36) / (1 - 19 / 36))


def test_evidence_ap_with_ties_by_hand():
    """A positive pixel that ties with a negative one at the top, and one alone at the third place."""
    scores = line([2, 2, 1, 0], "1010")
    assert scores.average_precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    chance = 1 / 3 + 2 / 3 * (1 / 2 + 1 / 3) / 2
    assert scores.evidence_ap == pytest.approx((7 / 12 - chance) / (1 - chance))


def test_pixels_that_do_not_count_change_nothing():
    apart = line([4, 9, 3, 2, -9, 1], "100100", "101101")
    assert apart == line([4, 3, 2, 1], "1010")


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([2, 5, 1000]))
def test_evidence_ap_is_the_formula(seed, levels):
    values, region = random_case(seed, levels)
    assert ranking_scores(values, region).evidence_ap == pytest.approx(exact(values, region), abs=1e-12)


@pytest.mark.parametrize("values", [np.arange(40), np.arange(40) // 7, np.minimum(np.arange(40), 20)])
def test_the_expectation_is_that_of_20_000_random_orders_ties_included(values):
    """A positive pixel keeps its place, and the others go anywhere; and the mean score of any order is 0."""
    rng, hits, orders = np.random.default_rng(0), 6, 20_000
    at_least = values[None] >= values[:, None]
    place, others = at_least.sum(1), (hits - 1) / 39
    shuffled = rng.permuted(np.tile(np.delete(np.arange(40), 17), (orders, 1)), axis=1)[:, : hits - 1]
    precision = (1 + at_least[17, shuffled].sum(1)) / place[17]
    expected = others + (1 - others) / place[17]
    assert abs(precision.mean() - expected) < 3 * precision.std() / np.sqrt(orders)

    positive = rng.permuted(np.tile(np.arange(40), (orders, 1)), axis=1)[:, :hits]
    found = at_least[positive[:, :, None], positive[:, None]].sum(2)
    above = np.mean(found / place[positive], axis=1) - others - (1 - others) * np.mean(1 / place[positive], 1)
    assert abs(above.mean()) < 3 * above.std() / np.sqrt(orders)
    for number in range(50):
        region = np.isin(np.arange(40), positive[number])
        scores = ranking_scores(values.astype(np.float32), region)
        chance = scores.average_precision - above[number]
        assert scores.evidence_ap == pytest.approx(above[number] / (1 - chance))


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(2, 50_000), st.floats(-5, 5, width=32))
def test_pixels_that_are_all_alike_score_exactly_zero(hits, total, value):
    region = np.arange(total)[None] < min(hits, total - 1)
    scores = ranking_scores(np.full((1, total), value, dtype=np.float32), region)
    assert scores.evidence_ap == 0.0
    assert scores.auroc == 0.5


def test_the_only_positive_pixel_is_held_against_all_places():
    assert line([3, 2, 1], "100").evidence_ap == pytest.approx(1)
    chance = (1 + 1 / 2 + 1 / 3) / 3
    assert line([3, 2, 1], "010").evidence_ap == pytest.approx((1 / 2 - chance) / (1 - chance))
    assert line([1, 1, 1], "010").evidence_ap == 0.0
    assert line([1], "1").evidence_ap == 0.0


def test_where_nothing_is_negative_nothing_can_be_told_from_chance():
    scores = line([3, 2, 1, 9], "1110", "1110")
    assert (scores.evidence_ap, scores.auroc) == (0.0, 0.5)


MONOTONE = {
    "cube": lambda v: v**3,
    "exponential": np.exp,
    "affine": lambda v: 3 * v - 7,
    "ranks": lambda v: np.unique(v, return_inverse=True)[1].reshape(v.shape),
}


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([2, 5, 40]), st.sampled_from(sorted(MONOTONE)))
def test_raising_all_values_by_a_monotone_function_changes_nothing_but_the_mass(seed, levels, raised):
    values, region = random_case(seed, levels)
    plain = ranking_scores(values, region)
    other = ranking_scores(MONOTONE[raised](values.astype(np.float64)), region)
    for name in ("average_precision", "evidence_ap", "auroc", "relevance_rank", "pointing"):
        assert getattr(plain, name) == getattr(other, name), name


def test_ties_share_the_pointing_vote_and_the_last_places():
    values = np.array([[3, 3, 3, 3], [2, 2, 1, 0]], dtype=np.float32)
    region = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    scores = ranking_scores(values, region)
    assert scores.pointing == pytest.approx(1 / 4)
    assert scores.relevance_rank == pytest.approx((1 * 3 / 4) / 3)
    assert scores.relevance_mass == pytest.approx(7 / 17)


def test_negative_saliency_carries_no_mass():
    values = np.array([[-5, 1, 1, -7]], dtype=np.float32)
    region = np.array([[True, True, False, False]])
    assert ranking_scores(values, region).relevance_mass == 0.5
    assert ranking_scores(-np.abs(values), region).relevance_mass == 0.0
