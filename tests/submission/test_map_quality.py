"""Signs that a map lost something before it was stored."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench import Attribution, SubmissionWriter, validate
from medfocus_bench.submission.map_quality import doubts, hidden_grid, levels, subnormal_share

from ..conftest import METHOD
from .documents import WITH_BOXES, WITH_MAP


def grad_cam_like(seed=0, shape=(16, 16), largest=2e-6):
    """Half of the cells zero, the others small and of many sizes, as the median map of Grad-CAM has them."""
    values = np.random.default_rng(seed).normal(size=shape) ** 3
    return np.maximum(values, 0) * largest / values.max()


def nearest(cells, pixels, seed=0):
    grid = np.random.default_rng(seed).random(cells).astype(np.float32)
    rows, columns = (np.arange(p) * c // p for p, c in zip(pixels, cells, strict=True))
    return grid[rows][:, columns]


def test_subnormals_are_those_of_float16_alone():
    small = grad_cam_like()
    assert subnormal_share(small.astype(np.float16)) == 1
    assert subnormal_share(small.astype(np.float32)) == 0
    assert subnormal_share((small / small.max()).astype(np.float16)) < 0.1
    assert subnormal_share(np.zeros((2, 2), np.float16)) == 0
    assert subnormal_share(np.float16([[0, 1, -(2.0**-15), 2.0**-14]])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("count", [1, 2, 10, 64, 65, 256])
def test_levels_are_counted_up_to_as_many_as_are_enough(count):
    saliency = (np.arange(224 * 224) // (224 * 224 // count + 1)).reshape(224, 224)
    assert levels(saliency) == (count if count <= 64 else None)


@pytest.mark.parametrize("cells", [(8, 8), (16, 16), (14, 14), (12, 18), (56, 56), (7, 112)])
def test_a_grid_of_repeated_cells_is_named(cells):
    assert hidden_grid(nearest(cells, (224, 224))) == cells


def test_a_grid_that_does_not_divide_the_frame_is_named_up_to_the_rounding_of_its_edges():
    for rounding in (np.floor, np.ceil, np.rint):
        edges = rounding(np.arange(1, 24) * 224 / 24).astype(int)
        at = np.searchsorted(edges, np.arange(224), side="right")
        assert hidden_grid(np.random.default_rng(1).random((24, 24))[at][:, at]) == (24, 24)


def test_a_grid_whose_neighbours_are_equal_in_places_is_named():
    grid = np.random.default_rng(2).random((16, 16))
    grid[:3] = 0
    assert hidden_grid(np.kron(grid, np.ones((14, 14)))) == (16, 16)


@pytest.mark.parametrize(
    "saliency",
    [
        np.random.default_rng(3).random((224, 224)),
        np.random.default_rng(3).random((8, 8)),
        np.add.outer(np.arange(224), np.arange(224)) * 1.0,
        np.ones((224, 224)),
        np.ones((224, 1)),
        np.zeros((0, 5)),
    ],
)
def test_pixels_of_their_own_are_no_grid(saliency):
    assert hidden_grid(saliency) is None


def test_a_mask_of_boxes_is_no_grid():
    mask = np.zeros((224, 224), np.uint8)
    mask[37:101, 12:95] = mask[150:163, 130:201] = 1
    assert hidden_grid(mask) is None
    assert doubts(mask) == {"levels": "2 levels of 50,176 pixels"}


def test_bilinear_upsampling_and_uint8_raise_no_doubt():
    ramp = np.interp(np.arange(224), np.arange(16) * 14 + 6.5, np.random.default_rng(4).random(16))
    smooth = np.outer(ramp, ramp)
    for saliency in (smooth, np.rint(255 * smooth / smooth.max()).astype(np.uint8), nearest((9, 9), (9, 9))):
        assert doubts(saliency) == {}


def test_validate_warns_of_each_and_finds_no_problem(tmp_path, bench):
    maps = {
        WITH_BOXES: nearest((8, 8), (224, 224)),
        WITH_MAP: (grad_cam_like(shape=(64, 64)) * 10).astype(np.float16),
    }
    with SubmissionWriter(tmp_path / "s", METHOD, bench, submitters="Ada") as writer:
        for sample_id, saliency in maps.items():
            writer.add(Attribution(sample_id, saliency=saliency))
    found = validate(tmp_path / "s", bench)
    assert found == []
    subnormal, grid = found.warnings
    assert subnormal.startswith("1 map has values that are subnormal in float16")
    assert subnormal.endswith(f"(the first is that of {WITH_MAP})")
    assert "(here 8 x 8 cells in 224 x 224 pixels)" in grid


def test_validate_warns_of_ten_levels(tmp_path, bench):
    ten = np.random.default_rng(5).integers(0, 10, (224, 224)).astype(np.uint8)
    with SubmissionWriter(tmp_path / "s", METHOD, bench, submitters="Ada") as writer:
        writer.add(Attribution(WITH_MAP, saliency=ten))
    (warning,) = validate(tmp_path / "s").warnings
    assert "far fewer levels than pixels (here 10 levels of 50,176 pixels)" in warning


def test_small_values_that_are_stored_as_float16_by_the_writer_survive_and_raise_no_doubt(tmp_path, bench):
    saliency = grad_cam_like()
    with SubmissionWriter(tmp_path / "s", METHOD, bench, submitters="Ada", stored="float16") as writer:
        writer.add(Attribution(WITH_MAP, saliency=saliency))
    found = validate(tmp_path / "s", bench)
    assert [warning for warning in found.warnings if "attribution" not in warning] == []
