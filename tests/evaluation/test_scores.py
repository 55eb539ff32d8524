"""The scores of one attribution: perfect, empty, uninformative and noisy ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.metrics.corrected_iou import chance_iou, corrected_iou
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.overlap import box_overlap, pixel_overlap
from medfocus_bench.evaluation.score import explanation, score
from medfocus_bench.geometry import BoxUnion, Frame, bilinear_weights

SIZES = [(224, 224), (512, 400), (3056, 2544), (101, 997)]
NAMES = [metric.name for metric in metrics()]


class Region(NamedTuple):
    """The fields of a sample that scores of maps and boxes use."""

    sample_id: str
    width: int
    height: int
    boxes: Any
    exact_mask: Any = None


def scores_of(sample, *, protocol="standard", seed=0, names=None, **kind):
    return score(Attribution(sample.sample_id, **kind), sample, names=names, protocol=protocol, seed=seed)


def explains_something(sample, *, protocol="standard", **kind):
    return explanation(Attribution(sample.sample_id, **kind), sample, protocol=protocol) is not None


def random_box(rng, width, height, smallest=0.05):
    sides = rng.uniform(smallest, 0.5, 2) * [width, height]
    corner = rng.random(2) * ([width, height] - sides)
    return np.concatenate([corner, corner + sides])[None]


def coverage_map(frame, boxes):
    return frame.embed(frame.coverage(boxes))


@pytest.mark.parametrize("size", SIZES)
def test_the_experts_own_boxes_are_perfect(size):
    rng = np.random.default_rng(0)
    for number in range(9):
        boxes = np.concatenate([random_box(rng, *size) for _ in range(1 + number % 3)])
        scores = scores_of(Region(str(number), *size, boxes), boxes=boxes)
        assert scores["iou"] == 1.0
        assert scores["evidence_ap"] == pytest.approx(1.0)
        for name in ("f1", "precision", "recall", "corrected_iou", "auroc", "relevance_rank", "pointing"):
            assert scores[name] == pytest.approx(1.0), name


@pytest.mark.parametrize("size", SIZES)
def test_a_region_smaller_than_a_pixel_can_still_be_explained_perfectly(size):
    boxes = np.array([[50.2, 60.1, 50.9, 60.6]])
    scores = scores_of(Region("tiny", *size, boxes), boxes=boxes)
    assert (scores["iou"], scores["evidence_ap"]) == (1.0, 1.0)


@pytest.mark.parametrize("size", SIZES)
def test_the_coverage_of_the_region_is_a_perfect_map(size):
    rng = np.random.default_rng(1)
    frame = Frame(*size)
    for number in range(9):
        boxes = random_box(rng, *size)
        evidence = Region(str(number), *size, boxes)
        for saliency in (coverage_map(frame, boxes), ndimage.gaussian_filter(coverage_map(frame, boxes), 4)):
            assert scores_of(evidence, saliency=saliency)["evidence_ap"] >= 0.99


def test_predictions_and_evidence_are_compared_in_one_frame():
    """Trap 20: 224-pixel boxes held against native ones give a perfect predictor 0."""
    size, boxes = (3056, 2544), np.array([[1800.0, 1500.0, 2600.0, 2200.0]])
    evidence = Region("far corner", *size, boxes)
    assert scores_of(evidence, saliency=coverage_map(Frame(*size), boxes))["evidence_ap"] > 0.99
    assert box_overlap(Frame(*size).to_model(boxes), boxes).iou == 0.0


NOTHING = {
    "all zero": np.zeros((224, 224), np.float32),
    "constant": np.full((16, 16), 3.0, np.float16),
    "NaN": np.full((224, 224), np.nan, np.float32),
    "one inf": np.where(np.arange(256).reshape(16, 16) == 9, np.inf, 1.0).astype(np.float32),
    "empty": np.zeros((0, 5), np.float32),
    "one pixel": np.ones((1, 1), np.float32),
    "varies in the padding only": np.repeat([[1.0], [0.0], [0.0], [1.0]], 56, axis=0).astype(np.float32),
}


@pytest.mark.parametrize("saliency", NOTHING.values(), ids=NOTHING.keys())
def test_a_map_that_says_nothing_is_no_explanation(saliency):
    evidence = Region("a", 400, 150, [[50, 40, 120, 100]])
    assert not explains_something(evidence, saliency=saliency)
    assert not any(scores_of(evidence, saliency=saliency).values())


def test_missing_attributions_and_empty_box_lists_are_no_explanation():
    evidence = Region("a", 224, 224, [[50, 40, 120, 100]])
    for protocol in ("standard", "paper"):
        assert explanation(None, evidence, protocol=protocol) is None
        assert not explains_something(evidence, protocol=protocol, boxes=np.empty((0, 4)))


def test_the_paper_protocol_turns_a_constant_map_into_the_whole_image():
    """Kept on purpose, so that published numbers can be laid beside ours."""
    evidence = Region("a", 224, 224, [[56, 56, 168, 168]])
    scores = scores_of(evidence, saliency=np.zeros((224, 224), np.float32), protocol="paper")
    assert list(scores) == ["iou", "f1", "precision", "recall"]
    assert scores["recall"] == 1.0
    assert scores["iou"] == scores["precision"] == pytest.approx(112**2 / 223**2)


@pytest.mark.parametrize(
    "saliency",
    [
        np.zeros((0, 5), np.float32),
        np.full((4, 4), np.nan),
        np.array([[0, 1], [-np.inf, 0]], np.float32),
        np.array([[np.nan, 1], [np.inf, 0]], np.float32),
        np.full((4, 4), np.inf),
    ],
    ids=["empty", "NaN", "minus inf", "NaN and inf", "all inf"],
)
def test_the_paper_protocol_finds_nothing_in_maps_whose_lowest_value_is_not_finite(saliency):
    evidence = Region("a", 224, 224, [[56, 56, 168, 168]])
    assert not any(scores_of(evidence, saliency=saliency, protocol="paper").values())


@pytest.mark.parametrize("shape", [(2, 2), (14, 14), (224, 224), (448, 300)])
def test_the_paper_protocol_turns_a_map_with_an_infinite_value_into_the_whole_image(shape):
    """Also at a resolution of its own: the value reaches the pixels that draw on it, and no others."""
    evidence = Region("a", 224, 224, [[56, 56, 168, 168]])
    saliency = np.random.default_rng(0).random(shape, dtype=np.float32)
    saliency[-1, 0] = np.inf
    constant = np.zeros((224, 224), np.float32)
    assert scores_of(evidence, saliency=saliency, protocol="paper") == scores_of(
        evidence, saliency=constant, protocol="paper"
    )
    assert not explains_something(evidence, saliency=saliency)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(16, 16), (9, 31), (448, 448)])
def test_the_paper_protocol_takes_a_map_of_any_resolution_as_its_resampling_to_the_model_frame(size, shape):
    """Its smallest area counts pixels of the model frame: an oracle of 16 x 16 tokens has parts below it."""
    frame = Frame(*size)
    boxes = random_box(np.random.default_rng(0), *size, smallest=0.3)
    oracle = coverage_map(frame, boxes)
    rows, columns = (bilinear_weights(224, side) for side in shape)
    tokens = (rows @ oracle @ columns.T).astype(np.float32)
    evidence = Region("a", *size, boxes)
    scores = scores_of(evidence, saliency=tokens, protocol="paper")
    assert scores == scores_of(evidence, saliency=frame.whole_of(tokens), protocol="paper")
    assert scores["iou"] > 0


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_image_says_nothing(size):
    rng = np.random.default_rng(2)
    whole = np.array([[0, 0, *size]], dtype=float)
    for number in range(20):
        evidence = Region(str(number), *size, random_box(rng, *size))
        scores = scores_of(evidence, boxes=whole)
        assert scores["evidence_ap"] == pytest.approx(0, abs=1e-9)
        assert scores["corrected_iou"] == pytest.approx(0, abs=1e-9)
        assert scores["precision_lift"] == pytest.approx(1, abs=1e-9)
        assert scores["auroc"] == 0.5
        assert scores["recall"] == pytest.approx(1.0)


def test_a_region_that_is_the_whole_image_scores_at_chance():
    evidence = Region("a", 300, 200, [[0, 0, 300, 200]])
    scores = scores_of(evidence, saliency=np.random.default_rng(0).random((16, 16)))
    assert scores["evidence_ap"] == 0.0
    assert scores["auroc"] == 0.5
    assert scores["precision_lift"] == pytest.approx(1.0)
    assert scores_of(evidence, boxes=np.array([[0, 0, 300, 200.0]]))["corrected_iou"] == pytest.approx(0.0)


def test_no_score_depends_on_the_order_of_the_pixels():
    rng = np.random.default_rng(3)
    values = rng.integers(4, size=(24, 24)).astype(np.float32)
    for flipped in (np.s_[::-1], np.s_[:, ::-1]):
        evidence = Region("a", 240, 240, [[20, 30, 100, 90]])
        box = [20, 150, 100, 210] if flipped == np.s_[::-1] else [140, 30, 220, 90]
        mirrored = Region("a", 240, 240, [box])
        straight, turned = scores_of(evidence, saliency=values), scores_of(mirrored, saliency=values[flipped])
        for name in NAMES:
            if name != "corrected_iou":
                assert straight[name] == pytest.approx(turned[name], abs=1e-9), name


def test_chance_iou_is_the_mean_over_translations():
    """Against brute force over all whole-pixel translations of a raster, wrapped at the edges."""
    rng = np.random.default_rng(4)
    predicted, expert = np.array([[1, 2, 9, 8], [11, 3, 14, 16]]), np.array([[5, 5, 12, 17], [2, 14, 9, 19]])
    raster = np.array([BoxUnion.of(boxes).coverage(16, 20) > 0 for boxes in (predicted, expert)])
    ious = [
        (moved & raster[1]).sum() / (moved | raster[1]).sum()
        for moved in (np.roll(raster[0], shift, (0, 1)) for shift in np.ndindex(20, 16))
    ]
    for union in (BoxUnion.of(predicted), BoxUnion.of_pixels(raster[0])):
        found = chance_iou(union, BoxUnion.of(expert), width=16, height=20, rng=rng, translations=10_000)
        assert found == pytest.approx(np.mean(ious), abs=0.004)


def test_pixels_and_the_boxes_that_are_those_pixels_have_one_overlap_and_one_chance():
    rng = np.random.default_rng(8)
    for _ in range(20):
        corners = np.sort(rng.integers(0, 30, (2, 2, 2)), axis=1)
        boxes = np.concatenate([corners[:, 0], corners[:, 1] + 1], axis=1).astype(float)
        expert = random_box(rng, 31, 31)
        pixels = BoxUnion.of(boxes).coverage(31, 31) > 0
        of_pixels, of_boxes = pixel_overlap(pixels, BoxUnion.of(expert)), box_overlap(boxes, expert)
        for name in ("iou", "f1", "precision", "recall"):
            assert getattr(of_pixels, name) == pytest.approx(getattr(of_boxes, name))
        chances = [
            chance_iou(union, BoxUnion.of(expert), width=31, height=31, rng=np.random.default_rng(0))
            for union in (BoxUnion.of(boxes), BoxUnion.of_pixels(pixels))
        ]
        assert chances[0] == pytest.approx(chances[1])


def test_corrected_iou_of_random_boxes_is_zero_on_average():
    rng = np.random.default_rng(5)
    corrected = []
    for number in range(200):
        evidence = Region(str(number), 224, 224, random_box(rng, 224, 224))
        corner = rng.random(2) * 224
        wrapped = np.concatenate([corner, corner + 80])[None]
        turns = ([0, 0, 0, 0], [224, 0, 224, 0], [0, 224, 0, 224], [224] * 4)
        pieces = np.concatenate([wrapped - turn for turn in turns])
        inside = np.clip(pieces, 0, 224)
        inside = inside[(inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])]
        corrected += scores_of(evidence, boxes=inside, names=["corrected_iou"]).values()
    assert abs(np.mean(corrected)) < 3 * np.std(corrected) / np.sqrt(len(corrected))


def test_corrected_iou_is_seeded():
    evidence = Region("a", 224, 224, [[50, 40, 120, 100]])
    first, again, other = (
        scores_of(evidence, boxes=[[60, 60, 150, 150]], seed=seed)["corrected_iou"] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first == pytest.approx(other, abs=0.01)


def test_correction_has_its_fixed_points():
    assert corrected_iou(0.3, 0.3) == 0
    assert corrected_iou(1.0, 0.3) == 1
    assert corrected_iou(1.0, 1.0) == 0


def selected(saliency, size=(224, 224)):
    evidence = Region("a", *size, [[50, 40, 120, 100]])
    return explanation(Attribution("a", saliency=saliency), evidence).selected


@pytest.mark.parametrize("size", SIZES)
def test_a_map_selects_a_tenth_of_the_image(size):
    chosen = selected(np.random.default_rng(9).random((16, 16)), size)
    assert chosen.sum() == np.ceil(chosen.size / 10)


def test_a_map_that_lies_on_less_than_a_tenth_selects_no_more_than_that():
    saliency = np.zeros((224, 224))
    saliency[100, 0] = 1
    rows, columns = np.indices((224, 224))
    chosen = selected(saliency)
    assert np.array_equal(chosen, (abs(rows - 100) <= 40) & (columns <= 40))


def test_a_plateau_at_the_threshold_is_selected_as_a_whole():
    saliency = np.zeros((224, 224))
    saliency[:, :112] = 1
    chosen = selected(saliency)
    assert chosen[:, :72].all()
    assert not chosen[:, 73:].any()


def test_the_overlap_of_a_map_is_that_of_its_selected_pixels_with_the_annotated_boxes():
    """Though the mask, against which pixels are ranked, is another one."""
    saliency = np.zeros((224, 224))
    saliency[100, 0] = 1
    mask = np.eye(224, dtype=bool)
    evidence = Region("a", 224, 224, [[0, 60, 41, 141], [0, 60, 30, 141]], mask)
    scores = scores_of(evidence, saliency=saliency)
    assert (scores["iou"], scores["precision"], scores["recall"]) == (1.0, 1.0, 1.0)
    assert scores["precision_lift"] == pytest.approx(224**2 / (81 * 41))
    assert scores["corrected_iou"] == pytest.approx(1)
    half = Region("a", 224, 224, [[0, 60, 20.5, 141]], mask)
    assert scores_of(half, saliency=saliency)["iou"] == pytest.approx(0.5)
    assert scores_of(half, saliency=saliency)["recall"] == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(-60, 60), st.floats(1e-3, 1e3), st.sampled_from([8, 16, 50]))
def test_no_score_depends_on_the_scale_of_a_map(seed, exponent, factor, side):
    rng = np.random.default_rng(seed)
    saliency = rng.standard_normal((side, side))
    evidence = Region("a", 300, 224, random_box(rng, 300, 224))
    expected = scores_of(evidence, saliency=saliency)
    assert scores_of(evidence, saliency=saliency * 2.0**exponent) == expected
    assert scores_of(evidence, saliency=saliency * factor) == pytest.approx(expected, abs=1e-3)


def test_a_map_of_small_float16_values_scores_as_one_of_float32():
    """Both hold the same numbers, of which the smallest are subnormal in float16."""
    rng = np.random.default_rng(11)
    small = (rng.integers(0, 200, (16, 16)) * 2.0**-24).astype(np.float16)
    evidence = Region("a", 300, 224, [[50, 40, 120, 100]])
    assert scores_of(evidence, saliency=small) == scores_of(evidence, saliency=small.astype(np.float32))
    assert scores_of(evidence, saliency=small) == scores_of(
        evidence, saliency=small.astype(np.float64) * 2**24
    )


CHANCE = {"evidence_ap": 0.0, "auroc": 0.5}


def test_random_maps_are_at_chance_within_their_interval():
    rng = np.random.default_rng(6)
    rows = []
    for number in range(120):
        evidence = Region(str(number), 224, 224, random_box(rng, 224, 224, smallest=0.2))
        saliency = rng.random((224, 224), dtype=np.float32)
        rows.append(scores_of(evidence, saliency=saliency, names=list(CHANCE)))
    for name, chance in CHANCE.items():
        values = np.array([row[name] for row in rows])
        assert abs(values.mean() - chance) < 1.96 * values.std(ddof=1) / np.sqrt(len(values)), name


@pytest.mark.parametrize(("grid", "samples"), [(16, 60), (224, 20)])
def test_rising_noise_lowers_every_mean(grid, samples):
    """Perfect maps mixed with ever more noise, as coarse as LVLM maps are or of single pixels.

    No score rises by more than a two-thousandth of the perfect map's. Boxes around a map's components, of
    which noise leaves small and pure ones, would reward it.
    """
    rng, frame = np.random.default_rng(7), Frame(224, 224)
    levels = np.linspace(0, 1, 6)
    means = np.zeros((len(levels), len(NAMES)))
    for number in range(samples):
        boxes = np.round(random_box(rng, 224, 224, smallest=0.1))
        evidence = Region(str(number), 224, 224, boxes)
        perfect, noise = coverage_map(frame, boxes), frame.content_of(rng.standard_normal((grid, grid)))
        for step, level in enumerate(levels):
            scores = scores_of(evidence, saliency=(1 - level) * perfect + level * noise)
            means[step] += np.array(list(scores.values())) / samples
    rises = dict(zip(NAMES, (np.diff(means, axis=0) / means[0]).T, strict=True))
    assert {name for name in NAMES if (rises[name] > 0.0005).any()} == set()
    assert means[-1, NAMES.index("evidence_ap")] < 0.05


def test_a_score_is_asked_for_by_name():
    sample = Region("a", 224, 224, [[50, 40, 120, 100]])
    attribution = Attribution("a", boxes=sample.boxes)
    assert score(attribution, sample, names=["iou"]) == {"iou": 1.0}
    with pytest.raises(InputError, match="no score 'iuo' under the paper protocol; there are iou, f1"):
        score(attribution, sample, names=["iuo"], protocol="paper")
