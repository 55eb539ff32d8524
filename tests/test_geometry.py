"""Boxes, unions and the map between the native and the model frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medfocus_bench.geometry import BoxUnion, Frame, as_boxes, bilinear_weights, clip_boxes, rasterise

SIDES = st.integers(1, 4000)
FRAMES = st.builds(Frame, SIDES, SIDES, st.sampled_from([14, 224, 448, 896]))


@st.composite
def boxes_within(draw, width, height, most=6):
    edge_x, edge_y = st.floats(0, width), st.floats(0, height)
    boxes = draw(st.lists(st.tuples(edge_x, edge_y, edge_x, edge_y), min_size=1, max_size=most))
    return np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in boxes])


@st.composite
def frames_with_boxes(draw):
    frame = draw(FRAMES)
    return frame, draw(boxes_within(frame.width, frame.height))


@given(frames_with_boxes())
def test_a_box_survives_the_way_to_the_model_frame_and_back(case):
    frame, boxes = case
    back = frame.to_native(frame.to_model(boxes))
    assert np.allclose(back, boxes, atol=1e-6 * max(frame.width, frame.height))


@given(FRAMES)
def test_the_whole_image_fills_the_content_exactly(frame):
    whole = [[0, 0, frame.width, frame.height]]
    assert np.allclose(frame.to_model(whole), [frame.content])
    assert frame.coverage(whole).min() == 1.0
    assert frame.coverage(whole).size == frame.area


@given(FRAMES)
def test_padding_and_content_tile_the_frame(frame):
    padding = rasterise(frame.padding, frame.size, frame.size)
    content = rasterise([frame.content], frame.size, frame.size)
    assert np.array_equal(padding + content, np.ones((frame.size, frame.size)))
    assert frame.area + BoxUnion.of(frame.padding).area == frame.size**2


@given(FRAMES)
def test_padding_is_split_evenly(frame):
    left, top, right, bottom = frame.content
    assert 0 <= (frame.size - right) - left <= 1
    assert 0 <= (frame.size - bottom) - top <= 1
    assert max(right - left, bottom - top) == frame.size


@given(FRAMES)
def test_a_box_in_the_padding_has_no_native_area(frame):
    native = frame.to_native(frame.padding)
    assert BoxUnion.of(native).area == pytest.approx(0, abs=1e-6 * frame.width * frame.height)


@given(frames_with_boxes())
def test_coverage_adds_up_to_the_exact_area_of_the_union(case):
    frame, boxes = case
    width, height = frame.content_size
    exact = BoxUnion.of(boxes).area * (width / frame.width) * (height / frame.height)
    assert frame.coverage(boxes).sum() == pytest.approx(exact, abs=1e-6 * frame.area)


def test_the_frame_agrees_with_a_resized_and_padded_picture():
    """The content box is where Pillow's resize of that size, pasted evenly, puts the picture."""
    frame = Frame(101, 997)
    square = Image.new("L", (224, 224))
    square.paste(Image.new("L", (101, 997), 255).resize(frame.content_size), frame.content[:2])
    assert np.array_equal(np.asarray(square) == 255, rasterise([frame.content], 224, 224) == 1)


@pytest.mark.parametrize(
    ("size", "content"),
    [
        ((224, 224), (0, 0, 224, 224)),
        ((512, 400), (0, 24, 224, 199)),
        ((3056, 2544), (0, 19, 224, 205)),
        ((101, 997), (100, 0, 123, 224)),
        ((1, 5000), (111, 0, 112, 224)),
    ],
)
def test_known_content_boxes(size, content):
    assert Frame(*size).content == content


def test_half_open_boxes_have_the_width_of_their_edges():
    """Trap 19: an inclusive reading of [2, 3, 5, 4] would cover 4 x 2 pixels, not 3 x 1."""
    covered = rasterise([[2, 3, 5, 4]], 8, 8)
    assert covered.sum() == 3
    assert covered[3, 2:5].tolist() == [1, 1, 1]


def test_a_union_counts_shared_pixels_once():
    boxes = [[0, 0, 4, 4], [2, 2, 6, 6], [2, 2, 4, 4]]
    assert BoxUnion.of(boxes).area == 28
    assert rasterise(boxes, 6, 6).max() == 1
    assert rasterise(boxes, 6, 6).sum() == 28


@given(boxes_within(40, 30), boxes_within(40, 30))
def test_intersections_agree_with_rasters_of_whole_pixels(left, right):
    left, right = np.round(left), np.round(right)
    a, b = BoxUnion.of(left, among=right), BoxUnion.of(right, among=left)
    pixels = rasterise(left, 40, 30).astype(bool) & rasterise(right, 40, 30).astype(bool)
    assert a.intersection_area(b) == pixels.sum()


def test_unions_on_different_edges_do_not_intersect_silently():
    with pytest.raises(ValueError, match="same edges"):
        BoxUnion.of([[0, 0, 1, 1]]).intersection_area(BoxUnion.of([[0, 0, 2, 2]]))


def test_no_boxes_cover_nothing():
    assert BoxUnion.of([]).area == 0
    assert rasterise([], 5, 4).shape == (4, 5)
    assert not rasterise([], 5, 4).any()


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([[0, 0, 1]], "shape"),
        ([0, 0, 1, 1], "shape"),
        ([[3, 0, 1, 1]], "inside out"),
        ([[0, 0, float("nan"), 1]], "not finite"),
        ([[0, 0, float("inf"), 1]], "not finite"),
    ],
)
def test_a_malformed_box_is_an_error_that_says_why(boxes, reason):
    with pytest.raises(ValueError, match=reason):
        as_boxes(boxes)


def test_clipping_keeps_every_row():
    clipped = clip_boxes([[-5, -5, 3, 3], [20, 20, 30, 30]], 10, 10)
    assert clipped.tolist() == [[0, 0, 3, 3], [10, 10, 10, 10]]


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_frame_without_extent_is_an_error(size):
    with pytest.raises(ValueError, match="positive"):
        Frame(*size)


@given(st.integers(1, 64), st.integers(1, 64))
def test_resampling_weights_are_an_average(source, target):
    weights = bilinear_weights(source, target)
    assert weights.shape == (target, source)
    assert np.allclose(weights.sum(1), 1)
    assert (weights >= 0).all()


def test_upsampling_uses_half_pixel_centres():
    """Trap 28: with corner-aligned sampling the outer cells would shrink."""
    framed = Frame(224, 224).content_of(np.eye(2, dtype=np.float32))
    assert framed[0, 0] == framed[55, 55] == 1
    assert framed[112, 112] == pytest.approx(0.5 + 0.5 * (1 / 112) ** 2, abs=1e-6)
    assert np.allclose(framed, framed[::-1, ::-1])


def test_resampling_keeps_plateaus_exactly_flat():
    """Pixels that tie on the token grid tie in the model frame: no order is made up by rounding."""
    tokens = np.zeros((16, 16), dtype=np.float16)
    tokens[4:9, 4:9] = 0.1
    framed = Frame(224, 224).content_of(tokens)
    plateau = framed[63 : 63 + 56, 63 : 63 + 56]
    assert np.unique(plateau).tolist() == [np.float32(np.float16(0.1))]
    assert np.unique(framed[:49]).tolist() == [0]


def test_a_finer_map_is_averaged_not_sampled():
    fine = np.zeros((896, 896), dtype=np.float32)
    fine[400, 400] = 1
    assert Frame(224, 224).content_of(fine).sum() == pytest.approx(1 / 16, rel=1e-3)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), FRAMES)
def test_the_content_of_an_embedded_map_is_that_map(rows, columns, frame):
    content = np.random.default_rng(rows).random((rows, columns))
    framed = frame.embed(content)
    left, top, right, bottom = frame.content
    assert not framed[:top].any()
    assert not framed[:, right:].any()
    assert np.array_equal(frame.content_of(framed), framed[top:bottom, left:right])
