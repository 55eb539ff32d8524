"""MedFocus and MedFocus+: what they report, what they cost, and what they share between models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.medfocus import anatomy
from medfocus_bench.medfocus.anatomy import ConceptLocaliser
from medfocus_bench.medfocus.concept_mask import ConceptMask
from medfocus_bench.medfocus.generative_fill import generative_fill
from medfocus_bench.medfocus.interventions import Effects, Measured, concept_regions, measure
from medfocus_bench.medfocus.localisers import localise
from medfocus_bench.medfocus.method import MedFocus, ranked
from medfocus_bench.medfocus.plus import (
    MedFocusPlus,
    correlation_map,
    effect_map,
    matched_null,
    probe_boxes,
)
from medfocus_bench.medfocus.reference import phantom_pool
from medfocus_bench.medfocus.vocabulary import with_lung_zones
from medfocus_bench.phantom.render import Patient, render

from ..attribution.vision_checkpoints import write_sam

PATIENT = render(Patient.sample((77, 6), findings=["consolidation"]))
QUESTION, RESPONSE = prompt("consolidation", "direct"), "Yes."
QUICK = {"localiser": "transport", "places": 1, "probes": 9}


@pytest.fixture(scope="module")
def example(qwen):
    return qwen.encode(PATIENT.image, QUESTION, RESPONSE)


@pytest.fixture(scope="module")
def published(qwen, example):
    """The finds of MedFocus as published, and the passes that it took."""
    with qwen.measured() as meter:
        found = MedFocus().explain(qwen, example)
    return found, (meter.forward_passes, meter.backward_passes)


@pytest.fixture(scope="module")
def regions():
    return localise(PATIENT.image, phantom_pool())


@pytest.fixture(scope="module")
def quick(qwen, example):
    """The finds of MedFocus+ with few interventions, and the passes that it took."""
    with qwen.measured() as meter:
        found = MedFocusPlus(**QUICK).explain(qwen, example)
    return found, meter.forward_passes


class Constant:
    """An LVLM that does not look: every picture gets the same scores."""

    batch, device, key = 16, torch.device("cpu"), "constant"

    def token_scores(self, example, edited):
        return torch.full((len(edited), len(example.answer)), -0.5)


# -- as published ------------------------------------------------------------------------------------------


def test_the_winners_box_is_reported_with_all_effects_and_its_tokens(published, regions, example):
    found, passes = published
    assert passes == (16, 0)
    assert set(found.concepts) == {*CONCEPTS, *COMPOSITES}
    effects = list(found.concepts.values())
    assert effects == sorted(effects, reverse=True)
    assert found.diagnostics == {"failure": 0.0}
    winner = next(iter(found.concepts))
    members = COMPOSITES.get(winner, (winner,))
    assert found.boxes.tolist() == [regions[member].box.tolist() for member in members]
    assert [text for text, _ in found.tokens] == list(example.tokens)
    assert sum(drop for _, drop in found.tokens) == pytest.approx(effects[0])


def test_a_winning_composite_reports_the_boxes_of_its_members(qwen, monkeypatch):
    """Trap 23: the box around both lungs holds the mediastinum, which was not filled."""
    patient = render(Patient.sample((77, 7), findings=["cardiomegaly"]))
    example, masks = qwen.encode(patient.image, prompt("cardiomegaly", "direct"), "Yes."), patient.concepts
    regions = {f"{side} lung": ConceptMask(masks[f"{side} lung"]) for side in ("left", "right")}
    monkeypatch.setattr(ConceptLocaliser, "regions", lambda self, image: regions)
    found = MedFocus(tau=2.0).explain(qwen, example)
    assert next(iter(found.concepts)) == "both lungs"
    assert found.boxes.tolist() == [region.box.tolist() for region in regions.values()]


def test_a_failure_reports_the_whole_image_as_published_or_nothing(example):
    found = MedFocus().explain(Constant(), example)
    assert found.boxes.tolist() == [[0, 0, 224, 224]]
    assert found.diagnostics["failure"] == 1.0
    assert found.tokens == ()
    assert MedFocus(on_failure="nothing").explain(Constant(), example).boxes.shape == (0, 4)


def test_an_editor_redraws_a_region_in_the_place_of_the_fill(qwen, example, published, regions):
    filled, redrawn = published[0], MedFocus(editor="inpainting").explain(qwen, example)
    assert set(filled.concepts) == set(redrawn.concepts)
    assert filled.concepts != redrawn.concepts
    heart = concept_regions({"cardiac silhouette": regions["cardiac silhouette"]}, {})
    draw = generative_fill("inpainting", example.finding, 0)
    expected = measure(qwen, example, heart, fill=draw).effects.total
    assert redrawn.concepts["cardiac silhouette"] == pytest.approx(expected[0])


def test_an_editor_is_told_which_finding_to_draw_away(monkeypatch):
    asked = []

    class Recorder:
        def redraw(self, question, edit, region, seed):
            asked.append((question.finding, edit, seed))
            return question.image

    monkeypatch.setattr("medfocus_bench.medfocus.generative_fill._loaded", lambda editor: Recorder())
    for finding in ("rib lesion", None):
        generative_fill("x", finding, 7)(np.zeros((4, 4), np.uint8), np.ones((4, 4), bool))
    assert asked == [("rib lesion", "foreground", 7), ("abnormality", "foreground", 7)]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"editor": "pencil"}, "no editor 'pencil'"),
        ({"editor": "inpainting,normals"}, "is not FIELD=VALUE"),
        ({"editor": "inpainting,colour=red"}, "no setting 'colour'"),
        ({"editor": "inpainting", "places": 2}, "give places 0"),
    ],
)
def test_an_editor_that_cannot_be_is_named(qwen, example, settings, problem):
    with pytest.raises(InputError, match=problem):
        MedFocus(**settings).explain(qwen, example)


def test_random_places_say_how_far_the_winner_stands_out(qwen, example):
    with qwen.measured() as meter:
        found = MedFocus(places=2).explain(qwen, example)
    assert meter.forward_passes == 1 + 15 * 3
    assert {"failure", "z", "z_low", "z_high", "p"} == set(found.diagnostics)
    assert found.diagnostics["z_low"] <= found.diagnostics["z"] <= found.diagnostics["z_high"]
    assert found.diagnostics["p"] in (1 / 3, 2 / 3, 1.0)


def test_effects_that_are_no_number_are_not_ranked():
    """Trap 25."""
    assert list(ranked(["a", "b", "c"], np.array([np.nan, 1.0, 2.0])).items()) == [("c", 2.0), ("b", 1.0)]


def test_settings_are_checked():
    with pytest.raises(InputError, match="medfocus: setting region"):
        load_method("medfocus", region="hull")
    with pytest.raises(InputError, match="medfocus: setting eps"):
        load_method("medfocus", eps=0)


def test_a_pool_that_is_missing_is_named(qwen, example):
    with pytest.raises(InputError, match="nowhere"):
        MedFocus(references="nowhere.safetensors").explain(qwen, example)


@pytest.mark.parametrize("settings", [{"pool_size": 1}, {"lam": 1.0}, {"eps": 0.5}, {"region": "mask"}])
def test_each_ablation_changes_what_is_found(qwen, example, published, settings):
    assert MedFocus(**settings).explain(qwen, example).concepts != published[0].concepts


# -- refinement --------------------------------------------------------------------------------------------


def test_all_boxes_are_refined_from_one_encoding_of_the_image(
    qwen, example, published, regions, tmp_path, monkeypatch
):
    """Trap 29."""
    from medfocus_bench.attribution.vision_models import load_segmenter

    folder = str(write_sam(tmp_path / "sam"))
    model = load_segmenter(folder).model
    calls = []
    encode = model.get_image_embeddings
    monkeypatch.setattr(
        model, "get_image_embeddings", lambda *args, **more: calls.append(1) or encode(*args, **more)
    )
    refined = MedFocus(segmenter=folder).explain(qwen, example)
    assert calls == [1]
    assert refined.concepts != published[0].concepts
    found = ConceptLocaliser(segmenter=folder).regions(PATIENT.image)
    masks = load_segmenter(folder).segment(PATIENT.image, [region.box for region in regions.values()])
    for (name, region), mask in zip(found.items(), masks, strict=True):
        assert not mask.any() or np.array_equal(region.mask, mask), name


# -- anatomy -----------------------------------------------------------------------------------------------


def test_models_that_share_an_image_share_its_anatomy(monkeypatch):
    calls = []
    monkeypatch.setattr(anatomy, "localise", lambda *args, **more: calls.append(1) or localise(*args, **more))
    image = render(Patient.sample((77, 9))).image
    first = ConceptLocaliser().regions(image)
    again = ConceptLocaliser().regions(image.copy())
    assert len(calls) == 1
    for name, region in first.items():
        assert np.array_equal(region.mask, again[name].mask)
    ConceptLocaliser(pool_size=2).regions(image)
    ConceptLocaliser().regions(image[:, ::-1])
    assert len(calls) == 3


def test_what_is_kept_is_bounded():
    kept = anatomy._Kept(budget=3000)
    region = {"lung": ConceptMask(np.ones((100, 100), dtype=bool))}
    for number in range(5):
        kept.put(str(number), region)
    assert [number for number in range(5) if kept.get(str(number)) is not None] == [3, 4]


def test_a_colour_image_has_the_anatomy_of_its_grey():
    image = render(Patient.sample((77, 10))).image
    grey, colour = (
        ConceptLocaliser().regions(image),
        ConceptLocaliser().regions(np.stack([image] * 3, axis=-1)),
    )
    assert all(np.array_equal(grey[name].mask, colour[name].mask) for name in grey)


def test_zones_are_thirds_of_their_lung_and_nothing_in_the_image_is_out_of_reach():
    regions = {name: ConceptMask(mask) for name, mask in PATIENT.concepts.items()}
    more = with_lung_zones(regions)
    for side in ("left", "right"):
        zones = [more[f"{side} {zone} lung zone"].mask for zone in ("upper", "middle", "lower")]
        assert np.array_equal(np.sum(zones, axis=0), regions[f"{side} lung"].mask.astype(int))
        tops = [np.flatnonzero(zone.any(axis=1))[0] for zone in zones]
        assert tops == sorted(tops)
    assert np.logical_or.reduce([region.mask for region in more.values()]).all()
    wall = more["right chest wall"].mask
    assert not wall[:, 112:].any(), "the patient's right lies on the left of the picture"
    mirrored = with_lung_zones({name: ConceptMask(region.mask[:, ::-1]) for name, region in regions.items()})
    assert np.array_equal(mirrored["right chest wall"].mask, wall[:, ::-1])


def test_without_lungs_there_are_no_zones():
    heart = {"heart": ConceptMask(PATIENT.concepts["cardiac silhouette"])}
    assert list(with_lung_zones(heart)) == ["heart"]


# -- MedFocus+ ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["phantom_qwen", "phantom_gemma"])
def test_the_map_peaks_on_what_drives_the_answer(key):
    lvlm = load_lvlm(key)
    read = lvlm.encode(PATIENT.image, QUESTION, RESPONSE)
    with lvlm.measured() as meter:
        found = MedFocusPlus(**QUICK | {"probes": 12}).explain(lvlm, read)
    assert meter.forward_passes == 1 + len(found.concepts) * 2 + 12
    assert found.saliency.shape == (56, 56)
    inside = PATIENT.findings["consolidation"].reshape(56, 4, 56, 4).mean((1, 3)) > 0.5
    assert found.saliency[inside].mean() > 2 * found.saliency[~inside].mean()
    assert {"failure", "z", "p"} == set(found.diagnostics)
    assert set(found.intervals) == set(found.concepts)
    assert all(low <= found.concepts[name] <= high for name, (low, high) in found.intervals.items())
    assert {"right upper lung zone", "left chest wall", "both lungs"} <= set(found.concepts)


@pytest.mark.parametrize("blend", ["effects", "correlation"])
def test_a_model_that_does_not_look_gets_no_explanation(example, blend):
    found = MedFocusPlus(**QUICK, blend=blend).explain(Constant(), example)
    assert np.ptp(found.saliency) == 0
    assert found.diagnostics["failure"] == 1.0
    assert found.tokens == ()


def test_a_model_without_numbers_is_an_error_or_a_failure(example):
    class Broken(Constant):
        def token_scores(self, example, edited):
            return super().token_scores(example, edited) * float("nan")

    with pytest.raises(InputError, match="constant: no intervention has an effect that is a number"):
        MedFocusPlus(**QUICK).explain(Broken(), example)
    found = MedFocus().explain(Broken(), example)
    assert (found.diagnostics["failure"], found.concepts) == (1.0, {})


def test_a_wide_image_in_native_framing_is_mapped_to_its_place():
    lvlm = load_lvlm("phantom_qwen", framing="native")
    image = render(Patient.sample((77, 4), findings=["mass"]), 300).image[:200]
    read = lvlm.encode(image, prompt("mass", "direct"), RESPONSE)
    found = MedFocusPlus(**QUICK).explain(lvlm, read)
    assert found.saliency.shape == (224, 224)
    top = read.frame.content[1]
    assert not found.saliency[: top - 1].any()


def test_candidates_that_differ_by_their_blend_share_passes_and_a_run_can_be_repeated(qwen, example, quick):
    method, (first, passes) = MedFocusPlus(**QUICK), quick
    candidates = list(method.candidates(qwen))
    assert len(candidates) == 6
    for settings in candidates:
        load_method("medfocus-plus", **settings)
    with qwen.measured() as meter:
        again, second = method.explain_candidates(qwen, example, candidates[:2])
    assert meter.forward_passes == passes
    assert np.array_equal(again.saliency, first.saliency)
    assert not np.allclose(second.saliency, first.saliency)
    other = replace(method, **candidates[1]).explain(qwen, example, seed=1)
    assert not np.array_equal(other.saliency, second.saliency)


def planted(place: tuple[int, int], count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Random boxes on a 20 x 20 grid, of which those that hold a place have an effect."""
    rng = np.random.default_rng(0)
    hidden = np.zeros((count, 20, 20))
    for mask in hidden:
        y, x = rng.integers(0, 15, 2)
        mask[y : y + 5, x : x + 5] = 1.0
    return hidden, hidden[:, place[0], place[1]].copy()


@pytest.mark.parametrize("blend", [correlation_map, effect_map])
def test_the_map_peaks_where_all_effective_interventions_meet(blend):
    hidden, effects = planted((8, 11))
    assert effects.any()
    saliency = blend(hidden, effects)
    assert saliency[8, 11] == saliency.max()
    assert saliency.min() >= 0


def test_the_null_of_a_site_is_of_its_area():
    """A small region's effect is not compared with what filling half of the image does."""
    regions = concept_regions({name: ConceptMask(PATIENT.concepts[name]) for name in CONCEPTS[:2]}, {})
    hidden = np.zeros((2, 8, 8))
    hidden[0, :1, :2] = hidden[1] = 1.0
    null = np.repeat(hidden, 25, axis=0)
    measured = Measured(
        regions=regions,
        original=np.zeros(1, np.float32),
        effects=Effects(np.array([[0.5], [5.0]])),
        tokens=("Yes",),
        hidden=hidden,
        null=Effects(np.repeat([[0.1], [9.0]], 25, axis=0)),
        hidden_in_null=null,
    )
    matched = matched_null(measured)
    assert matched.effects.shape == (2, 20)
    assert matched.p(measured.effects.per_token).tolist() == [1 / 21, 1.0]
    broken = replace(measured, null=Effects(np.where(null.any((1, 2))[:, None], np.nan, 0.0)[:, :1]))
    broken.null.drops[:5] = 0.1
    assert np.isfinite(matched_null(broken).effects).all()


def test_probes_lie_inside_the_image_around_what_is_salient(example):
    saliency = np.zeros((56, 56))
    saliency[10:12, 40:42] = 1.0
    boxes = probe_boxes(saliency, 40, example, np.random.default_rng(0))
    centre = np.mean([mask[44, 164] for mask in boxes])
    assert centre > 0.5
    assert all(mask.any() for mask in boxes)
    assert len(probe_boxes(np.zeros((56, 56)), 5, example, np.random.default_rng(0))) == 5
