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
