"""Maps of a resolution that a submission has room for."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.leaderboard.review.checks import MAX_MAPS_BYTES
from medfocus_bench.runs.thinning import SIDE, thinned


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (8, 8), (16, 12), (SIDE, SIDE), (SIDE, 1)])
def test_a_map_that_is_no_larger_is_let_be(shape):
    saliency = np.ones(shape, np.float32)
    assert thinned(saliency) is saliency


def test_each_cell_is_the_mean_over_its_area():
    saliency = np.arange(128 * 128, dtype=np.float32).reshape(128, 128)
    means = saliency.reshape(64, 2, 64, 2).mean((1, 3))
    np.testing.assert_allclose(thinned(saliency), means / means.max(), atol=5e-4)
    halves = np.zeros((96, 96), np.float32)
    halves[:, 1] = 1.0  # 1.5 pixels a cell: half of the second pixel is in each of the first two cells
    np.testing.assert_allclose(thinned(halves)[:, :3], [[1.0, 1.0, 0.0]] * 64, atol=1e-3)


def test_the_aspect_is_kept():
    assert thinned(np.eye(224, 100)).shape == (64, 29)
    assert thinned(np.ones((1, 2048))).shape == (1, 64)


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e-7, 1.0, 1e30])
def test_small_values_do_not_vanish_in_float16(scale):
    saliency = np.kron(np.arange(64.0 * 64).reshape(64, 64), np.ones((2, 2))) * scale
    stored = thinned(saliency)
    assert stored.dtype == np.float16
    assert stored.max() == 1
    assert np.count_nonzero(stored) == 64 * 64 - 1


def test_negative_values_and_constant_maps_stay_what_they_are():
    stored = thinned(np.where(np.arange(128) < 64, -3.0, 1.0) * np.ones((128, 1)))
    assert stored.min() == -1
    assert stored.max() == pytest.approx(1 / 3, abs=1e-3)
    for value in (0.0, 0.1, 7.0):
        assert len(np.unique(thinned(np.full((224, 224), value)))) == 1


def test_a_nearly_flat_map_keeps_its_levels():
    saliency = 1 + np.kron(np.arange(64.0 * 64).reshape(64, 64), np.ones((2, 2))) * 1e-5
    stored = thinned(saliency)
    assert stored.dtype == np.float32
    assert len(np.unique(stored)) == 64 * 64


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_stays_where_it_is(value):
    saliency = np.ones((128, 128))
    saliency[10, 20] = value
    stored = thinned(saliency)
    np.testing.assert_array_equal(stored[5, 10], value)
    assert np.isfinite(stored).sum() == stored.size - 1
    assert (stored[np.isfinite(stored)] == 1).all()


def test_maps_of_every_ranked_sample_of_the_track_are_taken_by_the_leaderboard():
    ranked = [sample for sample in load_benchmark("phantom").samples if sample.split != "dev"]
    header = sum(len(sample.sample_id) + 80 for sample in ranked)
    stored = thinned(np.ones((224, 224), np.float32))
    assert len(ranked) * stored.nbytes + header < MAX_MAPS_BYTES
    assert len(ranked) * SIDE * SIDE * 4 + header < MAX_MAPS_BYTES  # in float32, as small maps are kept
