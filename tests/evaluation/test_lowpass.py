"""Maps and boxes at one sharpness, against scipy's filter and against plateaus, which must stay flat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medfocus_bench import Attribution
from medfocus_bench.evaluation.lowpass import lowpassed
from medfocus_bench.geometry import Frame

SIZES = [(224, 224), (512, 400), (3056, 2544), (101, 997)]
SHAPES = [(1, 1), (2, 3), (16, 16), (9, 31), (224, 224), (448, 300)]


def filtered(content):
    """Scipy's Gaussian of content pixels, divided by its largest magnitude."""
    values = ndimage.gaussian_filter(np.asarray(content, dtype=np.float64), 10, mode="nearest")
    return values / np.abs(values).max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_a_map_is_resampled_cut_to_the_image_and_filtered(size, shape):
    frame, saliency = Frame(*size), np.random.default_rng(0).standard_normal(shape)
    expected = filtered(frame.content_of(saliency))
    assert lowpassed(saliency, frame) == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(lowpassed(Attribution(saliency=saliency), frame), lowpassed(saliency, frame))


@pytest.mark.parametrize("size", SIZES)
def test_of_boxes_their_exact_coverage_is_filtered(size):
    frame, (width, height) = Frame(*size), size
    boxes = np.array([[0.1, 0.2, 0.4, 0.35], [0.3, 0.3, 0.9, 0.7]]) * [width, height, width, height]
    assert lowpassed(Attribution(boxes=boxes), frame) == pytest.approx(
        filtered(frame.coverage(boxes)), abs=1e-6
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_the_image_alone_fills_the_image(size):
    frame, saliency = Frame(*size), np.random.default_rng(1).random((5, 7))
    framed = Attribution(saliency=saliency, frame="image").in_model_frame(frame)
    expected = lowpassed(framed, frame)
    assert lowpassed(Attribution(saliency=saliency, frame="image"), frame) == pytest.approx(
        expected, abs=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30),
)
def test_what_is_flat_stays_exactly_flat(shape, width, height, value):
    frame = Frame(width, height)
    assert np.unique(lowpassed(np.full(shape, value), frame)).tolist() == [np.sign(value)]
    whole = Attribution(boxes=[[0, 0, width, height]])
    assert np.unique(lowpassed(whole, frame)).tolist() == [1.0]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.integers(0, 2))
def test_both_sides_of_a_step_are_plateaus_beyond_the_filter(low, high, turns):
    """40 pixels from the step, which is where the Gaussian is cut."""
    saliency = np.where(np.arange(224) < 112, low, high)[None].repeat(224, 0)
    values = np.rot90(lowpassed(np.rot90(saliency, turns), Frame(224, 224)), -turns)
    assert len(np.unique(values[:, :72])) == len(np.unique(values[:, 152:])) == 1


def test_small_values_are_scaled_before_they_are_float32():
    frame, values = Frame(300, 200), np.random.default_rng(2).random((16, 16)).astype(np.float16)
    expected = lowpassed(values, frame)
    for scale in (2.0**-200, 2.0**-24, 2.0**200):
        assert np.array_equal(lowpassed(values.astype(np.float64) * scale, frame), expected)
    tiny = np.arange(256).reshape(16, 16)
    assert np.array_equal(lowpassed((tiny * 2.0**-24).astype(np.float16), frame), lowpassed(tiny, frame))


NOTHING = {
    "NaN": np.full((3, 3), np.nan),
    "one inf": np.diag([1.0, np.inf, 0.0]),
    "empty": np.zeros((0, 4)),
    "zero": np.zeros((4, 4)),
}


@pytest.mark.parametrize("saliency", NOTHING.values(), ids=NOTHING.keys())
def test_what_says_nothing_is_zero(saliency):
    assert not lowpassed(saliency, Frame(50, 80)).any()
    assert lowpassed(saliency, Frame(50, 80)).shape == (224, 140)
    for boxes in (np.empty((0, 4)), [[5, 5, 5, 9]], [[50, 10, 60, 20]]):
        assert not lowpassed(Attribution(boxes=boxes), Frame(50, 80)).any()
