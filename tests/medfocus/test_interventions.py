"""Interventions on concepts: what is filled, what it takes from each token, and what is decided."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medfocus_bench.data.concepts import COMPOSITES
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import Frame
from medfocus_bench.lvlm.example import EncodedExample
from medfocus_bench.lvlm.grid import InputView, TokenGrid
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.medfocus.concept_mask import ConceptMask
from medfocus_bench.medfocus.interventions import (
    ConceptRegion,
    NullDistribution,
    concept_effects,
    concept_regions,
    decide,
    input_mask,
    measure,
    moved_mask,
    region_parts,
)
from medfocus_bench.phantom.render import Patient, render

PATIENT = render(Patient.sample((77, 2), findings=["mass"]))
QUESTION, RESPONSE = prompt("mass", "direct"), "Yes."


# -- conformance -------------------------------------------------------------------------------------------


def token_ids(text: str) -> list[int]:
    return [1 + sum(map(ord, word)) % 29 for word in text.split()]


@dataclass
class FakeLVLM:
    """The documented model of the conformance vectors: it sees the means of 8 x 8 cells."""

    weights: np.ndarray
    base: np.ndarray
    ids: list[int]
    start: int
    batch: int

    def token_scores(self, example: EncodedExample, edited: torch.Tensor) -> torch.Tensor:
        rows = [self._row(np.round(pixel_values[0].double().numpy() * 255)) for pixel_values in edited]
        return torch.from_numpy(np.stack(rows))

    def _row(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape
        down = [height * n // 8 for n in range(9)]
        across = [width * n // 8 for n in range(9)]
        cells = np.array(
            [
                picture[down[i] : down[i + 1], across[j] : across[j + 1]].mean()
                for i in range(8)
                for j in range(8)
            ]
        )
        cells /= 255
        scores = []
        for place in range(self.start - 1, len(self.ids) - 1):
            now = (self.ids[place] * 7 + 3 * place) % 5
            logits = self.base[place % 7] + cells @ self.weights[:, now, :]
            logits -= logits.max()
            scores.append(logits[self.ids[place + 1]] - np.log(np.exp(logits).sum()))
        return np.array(scores, dtype=np.float32)


def fake(
    case: dict[str, Any], model: dict[str, np.ndarray], image: np.ndarray
) -> tuple[FakeLVLM, EncodedExample]:
    """The model and the example of a case; the span that the vectors score holds their two end tokens (D)."""
    start = len(token_ids(case["question"])) + 2
    ids = [0, *token_ids(case["question"]), 0, *token_ids(case["answer"])]
    ids += [30, 31] if case["end_tokens"] else []
    height, width = image.shape
    example = EncodedExample(
        image=image,
        question=case["question"],
        response=case["answer"],
        ids=torch.tensor(ids),
        token_types=None,
        image_positions=torch.zeros(1, dtype=torch.long),
        answer=range(start, len(ids)),
        tokens=tuple(map(str, ids[start:])),
        pixel_values=torch.from_numpy(image.astype(np.float32) / 255).expand(3, -1, -1),
        mean=torch.zeros(3, 1, 1),
        std=torch.ones(3, 1, 1),
        grid=TokenGrid(1, 1, InputView(Frame(width, height), "native")),
        verdict=None,
    )
    return FakeLVLM(model["W"], model["base"], ids, start, case["batch_size"]), example


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "intervention.json").read_text())


@pytest.fixture(scope="module")
def arrays(golden: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return dict(np.load(golden / "intervention_model.npz")), dict(np.load(golden / "intervention_images.npz"))


def box_region(name: str, boxes: list[list[int]], shape: tuple[int, int]) -> ConceptRegion:
    """A region of the vectors, whose boxes may be empty."""
    masks = []
    for x1, y1, x2, y2 in boxes:
        masks.append(np.zeros(shape, dtype=bool))
        masks[-1][y1:y2, x1:x2] = True
    return ConceptRegion(name, np.array(boxes, dtype=np.float64).reshape(-1, 4), tuple(masks))


def regions_in(case: dict[str, Any], shape: tuple[int, int]) -> list[ConceptRegion]:
    boxes = case["boxes"]
    regions = [box_region(name, [box], shape) for name, box in boxes.items()]
    for name, members in case["composites"].items():
        regions.append(box_region(name, [boxes[member] for member in members if member in boxes], shape))
    return [region for region in regions if region.masks]


@pytest.mark.parametrize("number", range(48))
def test_deltas_and_decisions_are_the_papers(vectors, arrays, number):
    case = vectors["scorer_cases"][number]
    model, images = arrays
    image = images[str(case["image"])]
    lvlm, example = fake(case, model, image)
    regions = regions_in(case, image.shape)
    measured = measure(lvlm, example, regions, fill=case["baseline"])
    for region, drops, total in zip(regions, measured.effects.drops, measured.effects.total, strict=True):
        assert total == pytest.approx(case["deltas"][region.name], abs=1e-6)
        assert drops == pytest.approx(case["per_token"][region.name], abs=1e-6)
    missing = set(case["deltas"]) - {region.name for region in regions}
    assert not any(case["deltas"][name] for name in missing)
    for tau, wanted in case["decisions"].items():
        decision = decide(measured.effects.total, float(tau))
        assert decision.failure == wanted["fallback"]
        if not wanted["fallback"]:
            assert regions[decision.winner].name == wanted["concept"]
            assert decision.effect == pytest.approx(wanted["delta"], abs=1e-6)


def test_every_row_of_the_decision_table_without_nan_is_reproduced(vectors):
    table = vectors["decision_table"]
    rows = [row for row in table["rows"] if not any(math.isnan(delta) for _, delta in row["deltas"])]
    assert len(rows) == 76
    for row in rows:
        decision = decide([delta for _, delta in row["deltas"]], row["tau"])
        assert decision.failure == row["out"]["fallback"], row
        if not decision.failure:
            assert row["deltas"][decision.winner][0] == row["out"]["concept"]
            assert decision.effect == row["out"]["delta"]
        else:
            assert decision.effect == row["out"]["delta"] == 0.0


def test_an_effect_that_is_no_number_never_wins(vectors):
    """Trap 25: the released code lets a NaN win where it comes first."""
    rows = [row for row in vectors["decision_table"]["rows"] if math.isnan(dict(row["deltas"]).get("a", 0))]
    assert len(rows) == 8
    assert any(row["out"]["concept"] == "a" for row in rows)
    for row in rows:
        decision = decide([delta for _, delta in row["deltas"]], row["tau"])
        names = [name for name, _ in row["deltas"]]
        assert decision.failure == (row["tau"] == 0.0)
        assert decision.failure or (names[decision.winner], decision.effect) == ("b", 5.0)
    assert decide([math.nan, math.nan]).failure
    assert decide([]).failure


# -- effects -----------------------------------------------------------------------------------------------


def test_a_token_that_becomes_likelier_adds_nothing():
    effects = concept_effects([-1.0, -2.0], [[-1.5, -0.5], [-1.0, np.nan]])
    assert effects.drops[0].tolist() == [0.5, 0.0]
    assert effects.total[0] == 0.5
    assert effects.per_token[0] == 0.25
    assert np.isnan(effects.total[1])


def test_noise_alone_crosses_the_threshold_in_a_long_response_summed_but_not_per_token():
    """Trap 24."""
    rng = np.random.default_rng(0)
    effects = concept_effects(np.zeros(150), rng.normal(0, 0.01, (15, 150)))
    assert not decide(effects.total).failure
    assert decide(effects.per_token).failure


def test_z_and_p_compare_an_effect_with_the_same_shape_elsewhere():
    null = NullDistribution(np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.5, 0.5, 0.5]]))
    observed = np.array([3.0, 1.0, np.nan])
    assert null.z(observed)[:2].tolist() == [2.0, 0.0]
    assert null.p(observed).tolist() == [0.25, 0.75, 1.0]


def test_the_interval_of_z_covers_it_and_narrows_with_more_places():
    rng = np.random.default_rng(0)
    observed = np.array([2.0, 0.0])
    widths = []
    for places in (10, 1000):
        null = NullDistribution(rng.normal(0, 1, (2, places)))
        low, high = null.z_interval(observed, np.random.default_rng(1)).T
        z = null.z(observed)
        assert ((low <= z) & (z <= high)).all()
        widths.append((high - low).max())
    assert widths[1] < widths[0] / 3
    again = null.z_interval(observed, np.random.default_rng(1))
    assert np.array_equal(again, np.stack([low, high], axis=1))


# -- regions -------------------------------------------------------------------------------------------------


def region(x1: int, y1: int, x2: int, y2: int, shape: tuple[int, int] = (224, 224)) -> ConceptMask:
    mask = np.zeros(shape, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return ConceptMask(mask)


def test_a_composite_is_the_union_of_its_members_not_their_hull(example):
    """Trap 23."""
    regions = {"left lung": region(130, 40, 180, 170), "right lung": region(40, 40, 90, 170)}
    *_, both = concept_regions(regions, COMPOSITES)
    assert both.name == "both lungs"
    assert both.boxes.tolist() == [[130, 40, 180, 170], [40, 40, 90, 170]]
    assert not both.mask("box")[:, 90:130].any()
    assert np.array_equal(both.mask("mask"), both.mask("box"))
    filled = np.logical_or.reduce(region_parts(both, "box", example))
    assert np.array_equal(filled, both.mask("box"))


def test_a_concept_that_was_not_found_is_left_out():
    regions = {"left lung": region(130, 40, 180, 170), "right lung": region(0, 0, 0, 0)}
    assert [region.name for region in concept_regions(regions, COMPOSITES)] == ["left lung", "both lungs"]
    with pytest.raises(InputError, match="no concept was found"):
        concept_regions({"right lung": region(0, 0, 0, 0)}, COMPOSITES)


# -- pictures ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(qwen):
    return qwen.encode(PATIENT.image, QUESTION, RESPONSE)


REGIONS = concept_regions({name: ConceptMask(mask) for name, mask in PATIENT.concepts.items()}, COMPOSITES)


def by_hand(lvlm, regions: tuple[ConceptRegion, ...], grey: int) -> np.ndarray:
    """The effects by editing the picture that the model is given, one by one."""
    pictures = [PATIENT.image]
    for region in regions:
        edited = PATIENT.image.copy()
        for x1, y1, x2, y2 in region.boxes.astype(int):
            edited[y1:y2, x1:x2] = grey
        pictures.append(edited)
    scores = np.concatenate([lvlm.log_probs([picture], QUESTION, RESPONSE) for picture in pictures])
    return np.maximum(0.0, scores[0] - scores[1:])


@pytest.mark.parametrize("key", ["phantom_qwen", "phantom_gemma"])
def test_zero_is_black_pixels_of_the_picture_and_every_site_costs_a_pass(key):
    """Trap 10: an input filled with normalised zeros would be grey."""
    lvlm = load_lvlm(key)
    read = lvlm.encode(PATIENT.image, QUESTION, RESPONSE)
    with lvlm.measured() as meter:
        measured = measure(lvlm, read, REGIONS)
    assert meter.forward_passes == len(REGIONS) + 1 == 16
    assert measured.tokens == read.tokens
    some = slice(None, None, 3)
    assert measured.effects.drops[some] == pytest.approx(by_hand(lvlm, REGIONS[some], 0), abs=1e-4)
    assert measured.effects.total.max() > 0


def test_mean_is_the_grey_of_the_image_alone(qwen, example):
    measured = measure(qwen, example, REGIONS[:3], fill="mean")
    wanted = by_hand(qwen, REGIONS[:3], int(PATIENT.image.mean()))
    assert measured.effects.drops == pytest.approx(wanted, abs=1e-4)


def test_boxes_fall_on_the_right_pixels_of_a_wide_image_in_both_framings(qwen):
    image = render(Patient.sample((77, 4), findings=["mass"]), 300).image[:200]
    lung = region(150, 40, 240, 170, image.shape)
    (placed,) = concept_regions({"left lung": lung}, {})
    square = qwen.encode(image, QUESTION, RESPONSE)
    (box,) = region_parts(placed, "box", square)
    ys, xs = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
    left, top, right, bottom = square.frame.to_model(placed.boxes)[0]
    assert np.abs(np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]) - [left, top, right, bottom]).max() <= 0.5
    native = load_lvlm("phantom_qwen", framing="native").encode(image, QUESTION, RESPONSE)
    rows, columns = native.pixel_values.shape[1:]
    (box,) = region_parts(placed, "box", native)
    assert box.shape == (rows, columns)
    assert box.mean() == pytest.approx(90 * 130 / image.size, rel=0.02)
    for read in (square, native):
        (mask,) = region_parts(placed, "mask", read)
        (box,) = region_parts(placed, "box", read)
        assert (mask ^ box).mean() < 0.01
        assert input_mask(np.zeros(image.shape, bool), read).sum() == 0


def test_a_box_thinner_than_a_pixel_of_the_input_still_fills_one(example):
    frame = Frame(2000, 2000)
    thin = replace(example, grid=TokenGrid(8, 8, InputView(frame)))
    (pixels,) = region_parts(ConceptRegion("thin", np.array([[1000.0, 100, 1002, 500]]), ()), "box", thin)
    assert pixels.any(axis=0).sum() == 1
    empty = ConceptRegion("empty", np.array([[50.0, 50, 50, 90]]), ())
    assert not region_parts(empty, "box", example)[0].any()


@pytest.mark.parametrize("fill", ["zero", "mean", "blur", "inpaint"])
@pytest.mark.parametrize("shape", ["box", "mask"])
def test_a_fill_changes_its_region_alone(example, fill, shape):
    from medfocus_bench.medfocus.fills import filler

    if fill == "inpaint":
        pytest.importorskip("skimage")
    for region in (REGIONS[0], REGIONS[11]):
        hidden = np.logical_or.reduce(region_parts(region, shape, example))
        painted = filler(example, fill)(hidden)
        changed = (painted != example.pixel_values).any(dim=0).numpy()
        assert not changed[~hidden].any()
        assert changed[hidden].mean() > 0.9
        assert torch.isfinite(painted).all()


def test_inpainting_continues_what_is_around_and_shows_nothing_of_what_was_there(example):
    pytest.importorskip("skimage")
    from medfocus_bench.medfocus.fills import filler

    other = example.pixel_values.clone()
    hidden = np.zeros((224, 224), dtype=bool)
    hidden[60:110, 60:110] = True
    other[:, 60:110, 60:110] = example.colour(1.0)
    same = filler(replace(example, pixel_values=other), "inpaint")(hidden)
    assert torch.allclose(filler(example, "inpaint")(hidden), same)
    flat = replace(example, pixel_values=example.colour(0.4).expand(3, 224, 224))
    assert torch.allclose(filler(flat, "inpaint")(hidden), flat.pixel_values, atol=1e-5)


def test_an_unknown_fill_is_refused(qwen, example):
    with pytest.raises(InputError, match="no fill 'grey'; there are zero, mean, blur and inpaint"):
        measure(qwen, example, REGIONS[:1], fill="grey")


def test_an_editor_redraws_native_pixels_and_what_it_does_outside_is_undone(qwen, example):
    def editor(image, mask):
        assert mask.shape == image.shape
        return np.zeros_like(image)

    measured = measure(qwen, example, REGIONS[:3], fill=editor)
    assert measured.effects.drops == pytest.approx(by_hand(qwen, REGIONS[:3], 0), abs=1e-4)
    with pytest.raises(ValueError, match="the editor returned"):
        measure(qwen, example, REGIONS[:1], fill=lambda image, mask: image[:3])
    with pytest.raises(InputError, match="no random places"):
        measure(qwen, example, REGIONS[:1], fill=editor, n_permutations=3)


# -- random places -----------------------------------------------------------------------------------------


def test_random_places_keep_the_shape_inside_the_image():
    rng = np.random.default_rng(0)
    mask = PATIENT.concepts["cardiac silhouette"]
    for _ in range(50):
        moved = moved_mask(mask, (20, 30, 200, 224), rng)
        assert moved.sum() == mask.sum()
        assert not moved[:30].any()
        assert not moved[:, :20].any()
        assert not moved[:, 200:].any()


def test_the_null_of_a_site_is_seeded_and_a_finding_stands_out_of_it(qwen, example):
    (region,) = concept_regions({"the mass": ConceptMask(PATIENT.findings["mass"])}, {})
    with qwen.measured() as meter:
        first = measure(qwen, example, [region], n_permutations=19, seed=1)
    assert meter.forward_passes == 21
    again = measure(qwen, example, [region], n_permutations=19, seed=1)
    null = first.null_of_total()
    assert np.array_equal(null.effects, again.null_of_total().effects)
    assert null.effects.shape == (1, 19)
    assert null.p(first.effects.total)[0] <= 0.1
    assert null.z(first.effects.total)[0] > 1
    assert measure(qwen, example, [region]).null_of_total() is None


def test_the_verdict_and_a_span_of_tokens_are_targets(qwen, example):
    whole = measure(qwen, example, REGIONS[:4])
    part = measure(qwen, example, REGIONS[:4], target=(1, 2))
    assert part.tokens == example.tokens[1:2]
    assert part.effects.drops == pytest.approx(whole.effects.drops[:, 1:2], abs=1e-5)
    verdict = measure(qwen, example, REGIONS[:4], target="verdict")
    assert verdict.effects.drops.shape == (4, 1)
