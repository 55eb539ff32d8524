"""Patients, cells and macro means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from medfocus_bench.evaluation.groups import Groups, numbered
from medfocus_bench.evaluation.protocol import Settings

QUICK = Settings(resamples=500)


@dataclass(frozen=True)
class One:
    patient: str
    lvlm: str
    source: str = "phantom"
    mode: str = "direct"
    evidence: str = "lesion"


SAMPLES = [One("a", "x"), One("a", "x"), One("b", "x"), One("b", "y"), One("c", "y", mode="reasoning")]
VALUES = np.array([[1.0], [0.0], [0.5], [0.25], [0.75]])


def test_a_macro_mean_is_the_mean_of_its_cells_means():
    groups = Groups.of(SAMPLES)
    ((macro,), (pooled,)) = groups.means(VALUES, [groups.macro(), groups.pooled()], QUICK)
    assert macro.mean == pytest.approx((1.5 / 3 + 1.0 / 2) / 2)
    assert pooled.mean == pytest.approx(2.5 / 5)


def test_the_fields_of_a_cell_are_named_by_who_asks():
    assert len(Groups.of(SAMPLES).macro().cells) == 2
    assert len(Groups.of(SAMPLES, by=("lvlm", "mode")).macro().cells) == 3
    assert len(Groups.of(SAMPLES, by=()).macro().cells) == 1


def test_a_cell_without_a_chosen_sample_is_left_out():
    groups = Groups.of(SAMPLES)
    chosen = groups.macro(np.array([True, True, False, False, False]))
    assert len(chosen.cells) == 1
    assert groups.counts(chosen) == (2, 1)


def test_the_patients_contributions_sum_to_the_macro_means():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 3))
    groups = Groups.of(SAMPLES)
    added = groups.contributions(values, groups.macro())
    means = [found.mean for found in groups.means(values, [groups.macro()], QUICK)[0]]
    assert added.shape == (3, 3)
    assert added.sum(axis=0) == pytest.approx(means)


def test_the_order_of_the_samples_changes_no_mean():
    back = Groups.of(SAMPLES[::-1])
    ((there,),) = Groups.of(SAMPLES).means(VALUES, [Groups.of(SAMPLES).macro()], QUICK)
    ((again,),) = back.means(VALUES[::-1], [back.macro()], QUICK)
    assert (again.mean, again.low, again.high) == pytest.approx((there.mean, there.low, there.high))


def test_values_are_numbered_in_their_sorted_order():
    places, count = numbered("banana")
    assert (places.tolist(), count) == ([1, 0, 2, 0, 2, 0], 3)


def test_kinds_of_evidence_weigh_the_same_and_so_do_the_lvlms_of_a_kind():
    lesions = [One("a", "x"), One("a", "y"), One("b", "y"), One("b", "z")]
    marks = [One("a", "t", evidence="spurious"), One("b", "t", source="other", evidence="spurious")]
    values = np.array([[0.9], [0.2], [0.4], [0.6], [0.1], [0.5]])
    groups = Groups.of([*lesions, *marks])
    ((found,),) = groups.means(values, [groups.macro()], QUICK)
    assert found.mean == pytest.approx(((0.9 + 0.3 + 0.6) / 3 + (0.1 + 0.5) / 2) / 2)
    assert found.by_lvlm == pytest.approx((0.9, 0.3, 0.6, 0.3))
    assert found.spread == pytest.approx((0.3, 0.9))


def test_intervals_are_over_lvlms_wherever_a_kind_of_evidence_has_several():
    samples = [One("a", "x"), One("b", "y"), One("c", "t", evidence="spurious")]
    groups = Groups.of(samples)
    several = groups.macro()
    of_two_kinds = groups.macro(np.array([True, False, True]))
    alone = groups.macro(np.array([True, False, False]))
    assert [one.levels for one in (several, of_two_kinds, alone)] == [
        "lvlms and patients",
        "patients",
        "patients",
    ]
    values = np.arange(3.0)[:, None]
    found = [one for (one,) in groups.means(values, [several, of_two_kinds, alone], QUICK)]
    assert [one.levels for one in found] == ["lvlms and patients", "patients", "patients"]
    assert [one.p_value is None for one in found] == [False, True, True]


def test_pooled_samples_weigh_the_same():
    groups = Groups.of(SAMPLES)
    assert groups.pooled().weights == pytest.approx((3 / 5, 2 / 5))
    assert Groups.of(SAMPLES, by=()).pooled().weights == (1,)


def test_an_interval_over_lvlms_does_not_leave_the_range_of_the_values_unless_it_is_a_difference():
    groups, values = Groups.of(SAMPLES), VALUES + np.array([[0], [0], [0], [0], [0.2]])
    ((mean,),) = groups.means(values, [groups.macro()], QUICK)
    assert (mean.low, mean.high) == (0, 1)
    ((difference,),) = groups.means(values, [groups.macro()], QUICK, paired=True)
    assert difference.high > 1
    assert (difference.p_value < 0.05) == (difference.low > 0)
