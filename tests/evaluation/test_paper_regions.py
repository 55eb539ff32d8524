"""The `paper` protocol on maps that say nothing sound, against its arithmetic written out step by step.

The conformance vectors hold constant maps and one NaN; infinite, huge and denormal values are held here.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medfocus_bench.evaluation.regions import map_to_boxes


def step_by_step(saliency, *, quantile=0.9, min_area=16, max_boxes=10, connectivity=8, remove_zeros=True):
    """The described procedure in plain float32 arithmetic: boxes with inclusive ends, and their areas."""
    values = np.asarray(saliency, dtype=np.float32)
    values = values - values.min()
    values = values / np.float32(values.max() + np.float32(1e-8))
    counted = values[values > 0] if remove_zeros else values.ravel()
    threshold = np.quantile(counted, quantile) if len(counted) else 0.0
    left = {(int(y), int(x)) for y, x in np.argwhere(values >= threshold)}
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if connectivity == 8 or not (dy and dx)]
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        members, edge = [], [start]
        left.discard(start)
        while edge:
            y, x = edge.pop()
            members.append((y, x))
            near = {(y + dy, x + dx) for dy, dx in steps} & left
            left -= near
            edge += sorted(near)
        if len(members) >= min_area:
            (y1, x1), (y2, x2) = np.min(members, axis=0), np.max(members, axis=0)
            mean = float(np.mean([values[member] for member in members], dtype=np.float64))
            found.append((mean, [int(x1), int(y1), int(x2), int(y2)], len(members)))
    found.sort(key=lambda region: -region[0])
    return [(box, area) for _, box, area in found[:max_boxes]]


def by_the_protocol(saliency, **settings):
    return [(list(r.box), r.area) for r in map_to_boxes(saliency, **settings)]


WIDTH, HEIGHT = 48, 32
WHOLE = [0, 0, WIDTH - 1, HEIGHT - 1]
NOISE = np.random.default_rng(0).random((HEIGHT, WIDTH), dtype=np.float32)


def with_values(**places):
    """Noise with values at (row, column), which are given as `value="row,column"`."""
    saliency = NOISE.copy()
    for value, place in places.items():
        row, column = map(int, place.split(","))
        saliency[row, column] = float(value.replace("minus_", "-"))
    return saliency


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("quantile", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("place", ["7,9", "31,47", "0,20"])
def test_one_infinite_value_gives_the_whole_image(quantile, connectivity, place):
    """Whatever is finite becomes 0, the value itself NaN, and with nothing above 0 the threshold is 0."""
    saliency = with_values(inf=place)
    settings = {"quantile": quantile, "connectivity": connectivity}
    assert by_the_protocol(saliency, **settings) == [(WHOLE, WIDTH * HEIGHT - 1)]


@pytest.mark.parametrize(
    "saliency",
    [
        with_values(nan="3,4"),
        with_values(minus_inf="3,4"),
        with_values(minus_inf="3,4", inf="5,6"),
        with_values(nan="3,4", inf="5,6"),
        np.full((HEIGHT, WIDTH), np.inf),
        np.full((HEIGHT, WIDTH), -np.inf),
        np.full((HEIGHT, WIDTH), np.nan),
    ],
    ids=["NaN", "-inf", "-inf and inf", "NaN and inf", "all inf", "all -inf", "all NaN"],
)
@pytest.mark.parametrize("remove_zeros", [True, False])
def test_a_lowest_value_that_is_not_finite_makes_everything_nan_and_gives_nothing(saliency, remove_zeros):
    assert by_the_protocol(saliency, remove_zeros=remove_zeros) == []


def test_a_line_of_infinite_values_parts_the_image():
    saliency = NOISE.copy()
    saliency[:, 20] = np.inf
    boxes = [box for box, _ in by_the_protocol(saliency)]
    assert boxes == [[0, 0, 19, HEIGHT - 1], [21, 0, WIDTH - 1, HEIGHT - 1]]


def test_with_the_zeros_counted_the_quantile_of_an_infinite_map_is_nan_and_gives_nothing():
    assert by_the_protocol(with_values(inf="3,4"), remove_zeros=False) == []


def test_a_range_beyond_float32_overflows_to_the_whole_image():
    saliency = with_values(**{"3e38": "3,4", "minus_3e38": "5,6"})
    assert by_the_protocol(saliency) == [(WHOLE, WIDTH * HEIGHT - 1)]
    assert by_the_protocol(np.where(saliency > 1, 1e300, NOISE.astype(np.float64))) == [
        (WHOLE, WIDTH * HEIGHT - 1)
    ]


@pytest.mark.parametrize("scale", [1e-45, 1e-42, 1e-38, 1e-12, 1e-8, 1e8, 1e37])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_smallest_differences_are_a_map_like_any_other(scale, offset):
    """Denormals, and constant maps but for their rounding: beside the constant 1e-8 they stay above 0."""
    saliency = (offset + NOISE * np.float32(scale)).astype(np.float32)
    found = by_the_protocol(saliency, min_area=1)
    assert found == step_by_step(saliency, min_area=1)
    assert found != []


def test_a_constant_map_is_a_component_like_any_other_so_the_smallest_area_holds():
    assert by_the_protocol(np.full((4, 4), 0.7)) == [([0, 0, 3, 3], 16)]
    assert by_the_protocol(np.full((3, 5), 0.7)) == []
    assert by_the_protocol(np.full((3, 5), 0.7), min_area=1) == [([0, 0, 4, 2], 15)]


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1.0000001, 0.5, -2.0, 1e-45, -1e-45, 1e-40, 1e-8]
SPECIAL += [3e38, -3e38]


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from(SPECIAL))
    | hnp.arrays(np.float32, (6, 7), elements=st.floats(width=32)),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.sampled_from([1, 4]),
    st.sampled_from([4, 8]),
    st.booleans(),
)
def test_any_map_gives_what_the_arithmetic_gives(saliency, quantile, min_area, connectivity, remove_zeros):
    settings = {
        "quantile": quantile,
        "min_area": min_area,
        "max_boxes": 1000,
        "connectivity": connectivity,
        "remove_zeros": remove_zeros,
    }
    with np.errstate(all="ignore"):
        expected = step_by_step(saliency, **settings)
    found = by_the_protocol(saliency, **settings)
    # The two sum in different orders, so means that agree to rounding may be ranked either way.
    assert sorted(found) == sorted(expected)
