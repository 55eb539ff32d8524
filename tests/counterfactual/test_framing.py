"""The square that a diffusion model draws in shows all of the region, and nothing shifts on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfocus_bench.counterfactual.framing import FramedPicture
from medfocus_bench.geometry import rasterise


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_the_framed_region_is_what_touches_the_region(width, height, seed):
    """Trap 28."""
    rng = np.random.default_rng(seed)
    region = rng.random((height, width)) < 0.05
    framed = FramedPicture.of(np.zeros((height, width), np.uint8), region, 32)
    rows, columns = np.nonzero(region)
    boxes = np.stack([columns, rows, columns + 1, rows + 1], axis=1)
    share = rasterise(framed.frame.to_model(boxes), 32, 32)
    assert np.array_equal(framed.region, share > 1e-9)


@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (300, 200), (201, 133)])
def test_a_picture_comes_back_where_it_was(shape):
    """A bright square keeps its place to a fraction of a pixel of the frame."""
    image = np.zeros(shape, np.uint8)
    height, width = shape
    image[height // 4 : height // 2, width // 4 : width // 2] = 255
    framed = FramedPicture.of(image, np.ones(shape, np.bool_), 64)
    back = framed.native(framed.grey, image).astype(float)
    for axis in (0, 1):
        places = np.arange(shape[axis]) + 0.5
        centre, found = ((p.sum(1 - axis) * places).sum() / p.sum() for p in (image.astype(float), back))
        assert abs(centre - found) < 0.1 * max(shape) / 64


def test_padding_is_black_and_never_redrawn():
    framed = FramedPicture.of(np.full((40, 80), 200, np.uint8), np.ones((40, 80), np.bool_), 64)
    shown = np.zeros((64, 64), np.bool_)
    shown[16:48] = True
    assert np.array_equal(framed.region, shown)
    assert np.array_equal(framed.grey, np.where(shown, 200, 0))


def test_a_picture_of_the_frames_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    framed = FramedPicture.of(image, np.zeros((64, 64), np.bool_), 64)
    assert np.array_equal(framed.grey, image)
    assert np.array_equal(framed.native(framed.grey, image), image)
