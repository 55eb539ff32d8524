"""From maps to boxes under the standard protocol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medfocus_bench.evaluation.regions import explains, map_to_boxes


def blank(height=64, width=64):
    return np.zeros((height, width), dtype=np.float32)


def test_boxes_are_half_open():
    """Trap 19: an inclusive box of these 16 rows and 20 columns would end one pixel short."""
    saliency = blank()
    saliency[10:26, 30:50] = 1
    (region,) = map_to_boxes(saliency)
    assert region.box == (30, 10, 50, 26)
    assert (region.area, region.score) == (320, 1.0)


NOTHING = {
    "all zero": np.zeros((32, 32)),
    "constant": np.full((32, 32), 0.7),
    "one NaN": np.where(np.arange(1024).reshape(32, 32) == 5, np.nan, 1.0),
    "one inf": np.where(np.arange(1024).reshape(32, 32) == 5, np.inf, 1.0),
    "minus inf": np.where(np.arange(1024).reshape(32, 32) == 5, -np.inf, 1.0),
    "no pixels": np.zeros((0, 7)),
    "one pixel": np.ones((1, 1)),
}


@pytest.mark.parametrize("saliency", NOTHING.values(), ids=NOTHING.keys())
def test_a_map_that_explains_nothing_has_no_regions(saliency):
    """Trap 21: a careless min-max turns these into the box of the whole image."""
    assert not explains(saliency)
    assert map_to_boxes(saliency) == []


def test_negative_values_are_shifted_by_the_normalisation():
    saliency = np.full((40, 40), -5.0)
    saliency[8:20, 8:20] = -1.0
    assert [region.box for region in map_to_boxes(saliency)] == [(8, 8, 20, 20)]


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (31, 97)])
def test_maps_need_not_be_square(shape):
    saliency = np.zeros(shape)
    saliency.ravel()[-20:] = 1
    (region,) = map_to_boxes(saliency)
    assert region.box[2:] == (shape[1], shape[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.int32])
def test_every_number_type_gives_the_same_boxes(dtype):
    saliency = np.zeros((50, 50), dtype=dtype)
    saliency[5:15, 5:15] = 100
    assert [region.box for region in map_to_boxes(saliency)] == [(5, 5, 15, 15)]


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), ()])
def test_a_map_is_two_dimensional(shape):
    with pytest.raises(ValueError, match="2-D"):
        map_to_boxes(np.zeros(shape))


def test_a_diagonal_line_is_one_region_of_eight_neighbours_and_none_of_four():
    saliency = np.eye(32, dtype=np.float32)
    assert len(map_to_boxes(saliency, connectivity=8)) == 1
    assert map_to_boxes(saliency, connectivity=4) == []


def test_components_below_the_smallest_area_are_dropped():
    saliency = blank()
    saliency[0:3, 0:5] = 1
    saliency[40:44, 40:44] = 1
    assert [region.box for region in map_to_boxes(saliency)] == [(40, 40, 44, 44)]


def test_regions_are_ranked_by_mean_saliency_and_cut_to_the_limit():
    saliency = blank(120, 120)
    for number in range(12):
        row, column = divmod(number, 4)
        saliency[30 * row + 2 : 30 * row + 8, 30 * column + 2 : 30 * column + 8] = 1 + number / 100
    regions = map_to_boxes(saliency, quantile=0.0)
    assert [region.score for region in regions] == sorted((r.score for r in regions), reverse=True)
    assert len(regions) == 10
    assert regions[0].box == (92, 62, 98, 68)


def test_regions_that_tie_across_the_limit_are_dropped_together():
    """Trap 22: keeping the first ten in scan order would prefer the top of the picture.

    Around the one in the centre are three times four that are equally far from it.
    """
    saliency = blank(130, 130)
    for row in range(2):
        for column in range(6):
            saliency[5 + 110 * row : 15 + 110 * row, 5 + 22 * column : 15 + 22 * column] = 1
    saliency[45:75, 45:75] = 2
    regions = map_to_boxes(saliency, quantile=0.0)
    flipped = map_to_boxes(saliency[::-1], quantile=0.0)
    assert {flip(region.box, 130) for region in regions} == {region.box for region in flipped}
    assert len(regions) == 1 + 2 * 4
    assert regions[0].box == (45, 45, 75, 75)


def flip(box, height):
    x1, y1, x2, y2 = box
    return x1, height - y2, x2, height - y1


@settings(max_examples=60)
@given(hnp.arrays(np.float32, (24, 24), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
def test_turning_the_picture_turns_the_regions(saliency):
    """Ties are everywhere in such a map; none may be broken by the order of the pixels."""
    upright = map_to_boxes(saliency, min_area=2, max_boxes=4)
    turned = map_to_boxes(saliency[::-1].copy(), min_area=2, max_boxes=4)
    assert {flip(region.box, 24) for region in upright} == {region.box for region in turned}
    assert {r.area for r in upright} == {r.area for r in turned}


@settings(max_examples=60)
@given(hnp.arrays(np.float64, (20, 30), elements=st.floats(-1e300, 1e300)))
def test_no_finite_map_breaks_the_way_to_boxes(saliency):
    for region in map_to_boxes(saliency, min_area=1):
        x1, y1, x2, y2 = region.box
        assert 0 <= x1 < x2 <= 30
        assert 0 <= y1 < y2 <= 20
        assert 0 <= region.score <= 1 + 1e-9
