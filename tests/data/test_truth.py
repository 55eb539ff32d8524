"""Truth beyond the row: taken for the picture that it belongs to, and boxes for every other."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.data import truth
from medfocus_bench.data.sample import Sample
from medfocus_bench.data.truth import Effects, mask_of_boxes, picture_digest
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import UnavailableError

from ..conftest import make_row

PICTURE = np.arange(64, dtype=np.uint8).reshape(8, 8)
MASK = np.eye(8, dtype=np.bool_)
EFFECTS = Effects(("Yes", "."), np.array([2, 0], dtype=np.float32), {"left lung": 1.5}, 2.0)


class Made:
    """The truth of a source of one picture; counts how often it is asked whether it knows one."""

    def __init__(self) -> None:
        self.asked = 0

    def knows(self, region, picture):
        self.asked += 1
        return picture_digest(picture) == picture_digest(PICTURE)

    def mask(self, region):
        return MASK

    def counterfactual(self, region):
        return 255 - PICTURE

    def effects(self, sample_id):
        return EFFECTS if sample_id.endswith("direct") else None


@pytest.fixture
def made(monkeypatch):
    made = Made()
    monkeypatch.setattr(truth, "installed_truths", lambda: {"made": made})
    monkeypatch.setattr(truth, "_CHECKED", {})
    return made


def samples_of(folder, picture=PICTURE, **more):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    shared = {"width": 8, "height": 8, "boxes": [[1, 1, 5, 6]], "image": file.getvalue()} | more
    shared = {"response": "Yes."} | shared
    rows = [make_row(3, lvlm=lvlm, **shared) for lvlm in ("one", "two")]
    return write_benchmark(folder, {"direct": rows}, name="b", version="1").samples


def test_the_truth_of_a_source_is_that_of_its_samples(made, tmp_path):
    one, two = samples_of(tmp_path / "b", source="made")
    for sample in (one, two):
        np.testing.assert_array_equal(sample.mask, MASK)
        np.testing.assert_array_equal(sample.counterfactual, 255 - PICTURE)
        assert sample.tokens == ("Yes", ".")
        assert sample.token_effects is EFFECTS.token_effects
        assert sample.concept_effects == {"left lung": 1.5}
        assert sample.drop == 2.0
    assert made.asked == 1  # the picture of a region is read once


def test_the_effects_on_another_response_are_not_those_of_this_one(made, tmp_path):
    sample = samples_of(tmp_path / "b", source="made", response="Yes, a nodule.")[0]
    assert sample.exact_mask is not None
    assert sample.tokens is sample.token_effects is sample.concept_effects is sample.drop is None


@pytest.mark.parametrize("change", ["source", "picture", "no picture"])
def test_where_the_truth_is_of_another_picture_the_boxes_are_the_mask(made, tmp_path, change):
    more = {"source": "other" if change == "source" else "made"}
    if change == "no picture":
        more["image"] = None
    picture = PICTURE[::-1] if change == "picture" else PICTURE
    sample = samples_of(tmp_path / "b", picture, **more)[0]
    assert sample.exact_mask is None
    wanted = np.zeros((8, 8), dtype=np.bool_)
    wanted[1:6, 1:5] = True
    np.testing.assert_array_equal(sample.mask, wanted)
    assert sample.tokens is sample.token_effects is sample.concept_effects is sample.drop is None
    with pytest.raises(UnavailableError, match="without the lesion is not known"):
        _ = sample.counterfactual


def test_another_benchmark_with_the_same_regions_has_its_own_pictures(made, tmp_path):
    theirs = samples_of(tmp_path / "theirs", PICTURE[::-1], source="made")[0]
    ours = samples_of(tmp_path / "ours", source="made")[0]
    assert theirs.region == ours.region
    assert [sample.exact_mask is None for sample in (theirs, ours, theirs, ours)] == [True, False] * 2


def test_an_image_of_ones_own_has_no_mask():
    sample = Sample.of_image(PICTURE, "Is there a nodule?", name="phantom")
    with pytest.raises(UnavailableError, match="no evidence"):
        _ = sample.mask
    boxed = dataclasses.replace(sample, boxes=np.array([[0.0, 0, 2, 2]]))
    assert boxed.mask.sum() == 4


@pytest.mark.parametrize(
    ("boxes", "pixels"),
    [
        ([[0, 0, 2, 1]], [(0, 0), (0, 1)]),
        ([[0.5, 0, 2.4, 1]], [(0, 0), (0, 1)]),  # half of the first pixel, less of the third
        ([[1.2, 2.2, 1.5, 2.6]], [(2, 1)]),  # nothing is half covered: the most covered
        ([[3, 3, 3, 3]], [(3, 3)]),
        ([[8, 8, 8, 8]], [(7, 7)]),
    ],
)
def test_pixels_count_from_half_covered_on_and_one_at_least(boxes, pixels):
    mask = mask_of_boxes(8, 8, np.array(boxes, dtype=np.float64).tobytes())
    assert list(zip(*np.nonzero(mask), strict=True)) == pixels
    assert not mask.flags.writeable


def test_a_digest_is_of_shape_and_pixels():
    flat = PICTURE.reshape(4, 16)
    assert len({picture_digest(picture) for picture in (PICTURE, flat, PICTURE[::-1])}) == 3
    assert picture_digest(PICTURE.copy()[:, ::-1][:, ::-1]) == picture_digest(PICTURE)
