"""The pixels that are evidence, those that count against an explanation, and those that do neither."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench.evaluation.evidence import Evidence
from medfocus_bench.geometry import Frame

SIZES = [(224, 224), (512, 400), (3056, 2544), (101, 997)]


def distances(pixels):
    """From every pixel's centre to the nearest of `pixels`, by brute force."""
    rows, columns = np.indices(pixels.shape)
    found = [np.hypot(rows - y, columns - x) for y, x in np.argwhere(pixels)]
    return np.min(found, axis=0)


def test_of_a_mask_its_boxes_and_a_rim_of_14_pixels_are_left_out():
    mask = np.zeros((224, 224), dtype=bool)
    mask[100:104, 50:57] = mask[97, 60] = True
    evidence = Evidence.of(224, 224, [[40, 80, 90, 125]], mask)
    boxed = np.zeros_like(mask)
    boxed[80:125, 40:90] = True
    assert np.array_equal(evidence.pixels, mask)
    expected = mask | ~((distances(mask) <= 14) | boxed)
    assert np.array_equal(evidence.counted, expected)
    assert evidence.share == 50 * 45 / 224**2


def test_of_boxes_the_boxes_are_the_mask_and_the_rim_lies_around_them():
    evidence = Evidence.of(224, 224, [[40, 80, 90, 125], [200, 10, 224, 20]])
    boxed = np.zeros((224, 224), dtype=bool)
    boxed[80:125, 40:90] = boxed[10:20, 200:] = True
    assert np.array_equal(evidence.pixels, boxed)
    assert np.array_equal(evidence.counted, boxed | (distances(boxed) > 14))


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_of_the_pixels_of_a_box_is_that_box(size):
    width, height = size
    x1, y1, x2, y2 = box = [width // 5, height // 3, width // 2, height // 2]
    mask = np.zeros((height, width), dtype=bool)
    mask[y1:y2, x1:x2] = True
    of_mask, of_box = Evidence.of(width, height, [box], mask), Evidence.of(width, height, [box])
    assert np.array_equal(of_mask.pixels, of_box.pixels)
    assert np.array_equal(of_mask.counted, of_box.counted)


def test_of_a_mask_below_half_a_pixel_the_most_covered_pixel_is_positive():
    mask = np.zeros((2544, 3056), dtype=bool)
    mask[1400, 2000] = True
    evidence = Evidence.of(3056, 2544, [[1900, 1300, 2100, 1500]], mask)
    ((row, column),) = np.argwhere(evidence.pixels)
    assert (row, column) == (int(1400.5 / 3056 * 224), int(2000.5 / 3056 * 224))


@pytest.mark.parametrize("size", SIZES)
def test_evidence_too_small_to_measure_is_the_pixel_that_holds_its_largest_box(size):
    frame, (width, height) = Frame(*size), size
    for x, y in ((0.6 * width, 0.3 * height), (width - 2e-9, height - 2e-9), (0, 0)):
        boxes = [[x, y, x + 1e-9, y + 1e-9], [1, 1, 1 + 1e-10, 1 + 1e-10]]
        assert not frame.coverage(boxes).any()
        ((row, column),) = np.argwhere(Evidence.of(*size, boxes).pixels)
        content_width, content_height = frame.content_size
        assert (row, column) == (int(y / height * content_height), int(x / width * content_width))


@pytest.mark.parametrize("boxes", [[[300, 300, 400, 400]], [[10, 10, 10, 50]]])
def test_evidence_outside_the_image_is_an_error_that_names_the_sample(boxes):
    with pytest.raises(ValueError, match=r"sample-7: .*covers nothing"):
        Evidence.of(224, 224, boxes, name="sample-7")
    with pytest.raises(ValueError, match=r"^the evidence covers nothing"):
        Evidence.of(224, 224, [[1, 1, 5, 5]], np.zeros((224, 224), dtype=bool))


def test_samples_of_a_region_share_its_pixels_which_nobody_can_change():
    boxes = [[10, 20, 60, 80]]
    one, other = (Evidence.of(224, 224, np.array(boxes, dtype=np.float64)) for _ in range(2))
    assert one is other
    assert Evidence.of(224, 200, boxes) is not one
    assert Evidence.of(224, 224, boxes, np.eye(224, dtype=bool)) is not one
    for array in (one.pixels, one.counted):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = True
