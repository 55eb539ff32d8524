"""The shipped segmenter and detector: ordinary checkpoints that know phantoms never trained on."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from transformers import Owlv2ForObjectDetection, Owlv2Processor, SamModel, SamProcessor

from medfocus_bench import phantom
from medfocus_bench.attribution.vision_models import (
    PHANTOM_VISION,
    load_detector,
    load_segmenter,
    mask_boxes,
)
from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import Patient, render
from medfocus_bench.phantom.track import box_of
from medfocus_bench.phantom.training import phrases
from medfocus_bench.phantom.training.phrases import HELD_OUT_ABSENT, PHRASES, REGIONS
from medfocus_bench.phantom.training.regions import jittered, overlap, region_masks
from medfocus_bench.phantom.training.vision_checkpoints import untrained_detector
from tests.phantom.sampling import sampled

WEIGHTS = Path(phantom.__file__).parent / "weights"
UNSEEN = 43_000_000
THRESHOLD = 0.1


@cache
def unseen(number, size=224):
    phantom = render(Patient.sample((UNSEEN, number)), size)
    return phantom.image, region_masks(phantom)


@pytest.mark.parametrize(
    ("name", "model", "processor"),
    [
        ("phantom_sam", SamModel, SamProcessor),
        ("phantom_owlv2", Owlv2ForObjectDetection, Owlv2Processor),
    ],
)
def test_the_folders_are_ordinary_small_checkpoints(name, model, processor):
    place = WEIGHTS / PHANTOM_VISION[name]
    loaded, info = model.from_pretrained(place, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert isinstance(processor.from_pretrained(place), processor)
    assert sum(path.stat().st_size for path in place.iterdir()) < 2.5e6
    assert loaded.config.model_type == name.removeprefix("phantom_")


def test_the_tokenizer_is_shipped_as_any_process_makes_it():
    """Equally frequent pairs would otherwise merge in the order of a hash table, another one each time."""
    made = untrained_detector(0)[1].tokenizer.backend_tokenizer.to_str()
    shipped = (WEIGHTS / "owlv2" / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(made)["model"] == json.loads(shipped)["model"]


def test_a_rough_box_of_a_concept_becomes_a_better_one():
    segmenter = load_segmenter("phantom_sam")
    rng = np.random.default_rng(0)
    before, after, masks_found = [], [], []
    for number in range(6):
        image, masks = unseen(number)
        true = np.concatenate([box_of(masks[concept]) for concept in CONCEPTS])
        rough = np.clip(jittered(true, 0.15, rng), 0, 224)
        found = segmenter.segment(image, rough)
        before.append(overlap(rough, true))
        after.append(overlap(mask_boxes(found), true))
        masks_found.append(
            [(f & masks[c]).sum() / (f | masks[c]).sum() for f, c in zip(found, CONCEPTS, strict=True)]
        )
    assert np.mean(before) < 0.78
    assert np.mean(after) > 0.82
    assert np.mean(after) > np.mean(before) + 0.08
    assert np.mean(masks_found) > 0.75


@sampled("patients", 1, 4)
def test_what_is_there_is_found_by_its_names(patients):
    detector = load_detector("phantom_owlv2")
    for number in range(patients):
        image, masks = unseen(number)
        asked = [(region, name) for region in (*CONCEPTS, *COMPOSITES) for name in PHRASES[region]]
        found = detector.detect(image, [name for _, name in asked])
        assert (found.scores >= THRESHOLD).all()
        true = np.concatenate([box_of(masks[region]) for region, _ in asked])
        assert np.mean(overlap(found.boxes, true) >= 0.5) > 0.9


@sampled("patients", 10, 40)
def test_findings_are_found_where_they_are_and_nearly_nowhere_else(patients):
    detector = load_detector("phantom_owlv2")
    there, elsewhere = [], []
    for number in range(patients):
        image, masks = unseen(number)
        scores = detector.detect(image, FINDINGS).scores
        for name, score in zip(FINDINGS, scores, strict=True):
            (there if name in masks else elsewhere).append(score >= THRESHOLD)
    assert len(there) > 1.5 * patients
    assert np.mean(there) > 0.9
    assert np.mean(elsewhere) < 0.2


@sampled("patients", 1, 4)
def test_phrases_for_nothing_are_refused(patients):
    detector = load_detector("phantom_owlv2")
    scores = np.array(
        [detector.detect(unseen(number)[0], HELD_OUT_ABSENT).scores for number in range(patients)]
    )
    assert np.mean(scores < THRESHOLD) > 0.95
    others = ["giraffe", "a red car", "fried egg", "hello world", "broken leg", "helicopter", "pizza"]
    assert (detector.detect(unseen(0)[0], others).scores < THRESHOLD).all()


def test_phrases_for_nothing_that_are_measured_are_never_trained():
    trained = {phrase.lower() for phrase in (*phrases.fragments(), *phrases.STRANGERS)}
    assert not trained & {phrase.lower() for phrase in HELD_OUT_ABSENT}


def test_every_region_has_names_and_no_name_two_regions():
    assert set(PHRASES) == set(REGIONS)
    names = [name for region in REGIONS for name in PHRASES[region]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("height", "width"), [(400, 512), (512, 400)])
def test_a_picture_that_is_not_square_has_its_boxes_and_masks_where_they_belong(height, width):
    """Both processors fill a square from its top left corner: an offset or a squashed side would show."""
    top, left = (512 - height) // 2, (512 - width) // 2
    cut = np.s_[top : top + height, left : left + width]
    regions = ["cardiac silhouette", "left lung", "right lung", "left clavicle", "right hilar structures"]
    squash = np.array([1.0, width / height, 1.0, width / height])
    boxes, squashed, refined = [], [], []
    for number in range(3):
        image, masks = unseen(number, 512)
        true = np.concatenate([box_of(masks[region][cut]) for region in regions])
        found = load_detector("phantom_owlv2").detect(image[cut], regions).boxes
        found_masks = load_segmenter("phantom_sam").segment(image[cut], true)
        assert found_masks.shape == (5, height, width)
        boxes.append(overlap(found, true))
        squashed.append(overlap(found * squash, true))
        refined.append(overlap(mask_boxes(found_masks), true))
    assert np.mean(boxes) > 0.7
    assert np.mean(refined) > 0.75
    assert np.mean(squashed) < np.mean(boxes) - 0.15
