"""Transport carries concepts over; properties of every localiser."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.overlap import box_overlap
from medfocus_bench.medfocus import ReferencePool, localise
from medfocus_bench.medfocus.concept_mask import tight_box
from medfocus_bench.medfocus.localisers import smallest_set
from medfocus_bench.medfocus.reference import phantom_pool
from medfocus_bench.medfocus.transport import Problem
from medfocus_bench.phantom.render import Patient, render

THIN = np.random.default_rng(0).integers(0, 255, (4, 1200), dtype=np.uint8)
PATIENT = render(Patient.sample((41_000_000, 0)))


@pytest.fixture(scope="module")
def pool():
    return phantom_pool()


@pytest.fixture(scope="module")
def regions(pool):
    return localise(PATIENT.image, pool)


def test_every_concept_of_the_pool_has_a_region(regions):
    assert set(regions) == set(CONCEPTS)
    for region in regions.values():
        assert region.mask.dtype == np.bool_
        assert region.mask.shape == PATIENT.image.shape
        assert np.array_equal(region.box, tight_box(region.mask))


def test_members_of_composites_are_concepts():
    assert {member for members in COMPOSITES.values() for member in members} <= set(CONCEPTS)


def test_left_is_the_patients_left(regions):
    """The left lung lies on the right of the picture."""
    assert regions["left lung"].box[[0, 2]].mean() > regions["right lung"].box[[0, 2]].mean()


def test_lungs_are_roughly_where_they_are(regions):
    """The paper's transport blurs (trap 27): lungs are found, small structures hardly."""
    for lung in ("left lung", "right lung"):
        assert box_overlap(regions[lung].box, tight_box(PATIENT.concepts[lung])).iou > 0.4


def test_a_transport_that_carries_no_mass_is_an_error_and_no_empty_region():
    """Two bright spots far apart: what the plan holds is below the smallest number."""
    reference, image = np.zeros((2, 224, 224), dtype=np.uint8)
    reference[8:40, 8:40] = image[180:212, 180:212] = 200
    pool = ReferencePool([reference], [{"left lung": reference > 0}])
    with pytest.raises(InputError, match=r"eps 0\.0001 and lam 0\.0001 carries no mass.*larger eps or lam"):
        localise(image, pool, grid=14, problem=Problem(eps=0.0001, lam=0.0001))
    assert localise(image, pool, grid=14, problem=Problem(eps=0.001))["left lung"]


def test_one_bright_point_on_black_is_an_error():
    point = np.zeros((224, 224), dtype=np.uint8)
    point[100:104, 100:104] = 200
    pool = ReferencePool([point], [{"left lung": point > 0}])
    with pytest.raises(InputError, match=r"bright point|leaves nothing"):
        localise(point, pool)


@pytest.mark.parametrize("shape", [(448, 448), (300, 224), (150, 224)])
def test_regions_are_in_native_pixels_of_any_image(pool, shape):
    """Trap 20: a bigger picture of the same patient has the same regions, bigger."""
    height, width = shape
    rows, columns = np.arange(height) * 224 // max(shape), np.arange(width) * 224 // max(shape)
    image = PATIENT.image[rows][:, columns]
    region = localise(image, pool)["left lung"]
    assert region.mask.shape == shape
    truth = tight_box(PATIENT.concepts["left lung"][rows][:, columns])
    assert box_overlap(region.box, truth).iou > 0.35


def test_no_cells_are_lost_at_the_edges():
    """Trap 28: a region that reaches the last cell reaches the last pixel."""
    image = np.full((224, 224), 10, np.uint8)
    image[112:, 112:] = 250
    corner = np.zeros((224, 224), np.bool_)
    corner[112:, 112:] = True
    pool = ReferencePool([image], [{"corner": corner}])
    region = localise(image, pool, mass=0.999999)["corner"]
    assert region.box.tolist()[2:] == [224, 224]


def test_the_smallest_set_holds_its_share_and_takes_equals_in_order():
    heat = np.array([[4.0, 3.0], [2.0, 1.0]])
    everywhere = np.ones((2, 2), np.bool_)
    assert smallest_set(heat, everywhere, 0.7).tolist() == [[True, True], [False, False]]
    assert smallest_set(heat, everywhere, 0.71).tolist() == [[True, True], [True, False]]
    flat = smallest_set(np.ones((2, 2)), everywhere, 0.5)
    assert flat.tolist() == [[True, True], [False, False]]
    assert not smallest_set(np.zeros((2, 2)), everywhere, 0.75).any()
    assert not smallest_set(heat, np.zeros((2, 2), np.bool_), 0.75).any()


@pytest.mark.parametrize(
    ("image", "method", "said"),
    [
        *(
            (np.full(shape, level, np.uint8), method, "one grey level")
            for shape, level in (((50, 80), 128), ((90, 50), 255), ((224, 224), 0), ((224, 223), 255))
            for method in ("transport", "atlas")
        ),
        *((THIN, "transport", "too thin"), (THIN, "atlas", "too thin"), (THIN.T, "atlas", "too thin")),
        (np.zeros((50, 50, 3), np.uint8), "transport", r"uint8 \(height, width\)"),
        (np.zeros((50, 50)), "transport", r"uint8 \(height, width\)"),
        (PATIENT.image, "guess", "no localiser 'guess'"),
    ],
)
def test_what_cannot_be_localised_is_an_error(pool, image, method, said):
    """Also a white or a grey picture that is not square, whose padding is another level than its own."""
    with pytest.raises(InputError, match=said):
        localise(image, pool, method)


def test_a_strip_that_hardly_overlaps_leaves_the_terminal_alone(pool, capfd):
    """ITK wrote a page of warnings, past Python's."""
    localise(THIN[:, :30], pool.subset([0]), "atlas", size=64)
    assert capfd.readouterr() == ("", "")
