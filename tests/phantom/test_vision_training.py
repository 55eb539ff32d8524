"""The training of the segmenter and the detector: a smoke, and that its short-cuts are the real thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medfocus_bench.attribution.vision_models import load_detector, load_segmenter
from medfocus_bench.phantom.render import Patient, render
from medfocus_bench.phantom.training import detector, regions, segmenter
from medfocus_bench.phantom.training.phrases import FRAMES, PHRASES, REGIONS
from medfocus_bench.phantom.training.vision_checkpoints import (
    DEVIATION,
    MEAN,
    OWL_SIDE,
    SAM_SIDE,
    untrained_detector,
    untrained_segmenter,
)


@pytest.fixture(scope="module")
def data():
    return regions.draw_regions(4, 5)


@pytest.fixture(scope="module")
def owl():
    model, processor = untrained_detector(0)
    return model.eval(), processor


WINDOWS = [(0, 0, 224, 224), (10, 20, 200, 150), (30, 5, 120, 219)]


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_are_what_the_processors_make_of_the_cut_picture(data, owl, window):
    """Trap 20: a box of the picture, put on the canvas, is where the processor puts it."""
    x1, y1, x2, y2 = window
    cut = Image.fromarray(data.images[0][y1:y2, x1:x2]).convert("RGB")
    grey = torch.from_numpy(data.images[:1]).float() / 255
    box = np.array([[[60.0, 50.0, 100.0, 140.0]]])

    _, processor = untrained_segmenter(0)
    theirs = processor(images=cut, input_boxes=[(box - [x1, y1, x1, y1])[0].tolist()], return_tensors="pt")
    windows = regions.Windows(np.array([window], dtype=float), SAM_SIDE)
    ours = windows.sample((grey - MEAN) / DEVIATION, 0.0)
    assert (ours[0] - theirs["pixel_values"][0, 1]).abs().mean() < 0.01
    assert windows.onto(box)[0] == pytest.approx(theirs["input_boxes"][0].numpy(), abs=0.7)

    theirs = owl[1].image_processor(images=cut, return_tensors="pt")["pixel_values"]
    windows = regions.Windows(np.array([window], dtype=float), OWL_SIDE)
    ours = (windows.sample(grey, 0.0) - MEAN) / DEVIATION
    assert (ours[0] - theirs[0, 1]).abs().mean() < 0.02


def test_one_encoding_of_the_phrases_gives_what_the_model_gives(data, owl):
    model, processor = owl
    asked = ["heart", "the left lung", "banana"]
    picture = Image.fromarray(data.images[0]).convert("RGB")
    inputs = processor(text=[asked], images=picture, padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**inputs)
        logits, boxes, objects = detector.predicted(model, processor, inputs["pixel_values"][:, 0], asked)
    assert torch.allclose(logits, theirs.logits, atol=1e-4)
    assert torch.allclose(boxes, theirs.pred_boxes, atol=1e-6)
    assert torch.allclose(objects, theirs.objectness_logits, atol=1e-5)


def test_no_token_of_a_phrase_is_the_one_that_marks_padding(owl):
    """OWLv2 leaves out every phrase whose first id is 0, and its text tower reads up to the end token."""
    tokens = owl[1].tokenizer(["heart", "\u00e9\u4e2d\U0001f600 x?!", "NoNo"])["input_ids"]
    assert all(0 not in ids for ids in tokens)
    assert all(ids[-1] == owl[0].config.text_config.eos_token_id for ids in tokens)
    pieces = owl[1].tokenizer.tokenize("left costophrenic angle")
    assert pieces == ["left</w>", "costophrenic</w>", "angle</w>"]


def test_regions_are_those_of_the_phantom(data):
    for number in range(4):
        phantom = render(regions.region_patient(5, number))
        shown = {REGIONS[region]: data.mask(number, region) for region in data.masks[number]}
        assert {*phantom.concepts, *phantom.findings, *phantom.marks} <= set(shown)
        assert np.array_equal(shown["left lung"], phantom.concepts["left lung"])
        assert np.array_equal(
            shown["both lungs"], phantom.concepts["left lung"] | phantom.concepts["right lung"]
        )
        there = np.isfinite(data.boxes[number]).all(axis=1)
        assert {REGIONS[region] for region in np.flatnonzero(there)} == set(shown)


def test_a_patch_proposes_one_region_and_the_smaller_one_chooses_first():
    boxes = np.array([[[0.0, 0, 224, 224], [98, 98, 126, 126], [0, 0, 28, 28]]])
    rows = detector.assigned(boxes, np.array([[True, True, False]]), 16, OWL_SIDE)
    assert len(set(rows.patches.tolist())) == len(rows.patches) == 8
    assert set(rows.patches[rows.regions == 1].tolist()) == {7 * 16 + 7, 7 * 16 + 8, 8 * 16 + 7, 8 * 16 + 8}


def test_a_region_of_which_little_is_left_is_not_shown():
    windows = regions.Windows(np.array([[0.0, 0.0, 112.0, 224.0]]), OWL_SIDE)
    boxes = np.array([[[100.0, 0, 140, 40], [80, 0, 120, 40], [np.nan] * 4]])
    assert windows.shown(boxes).tolist() == [[False, True, False]]
    assert windows.onto(boxes)[0, 1].tolist() == [80, 0, 112, 40]


def test_rough_boxes_are_as_rough_as_they_are_said_to_be():
    boxes = np.tile([40.0, 60.0, 140.0, 80.0], (500, 1))
    moved = np.abs(regions.jittered(boxes, 0.15, np.random.default_rng(0)) - boxes)
    assert moved.max(axis=0) == pytest.approx([15, 3, 15, 3], rel=0.02)
    wild = regions.jittered(boxes, 5.0, np.random.default_rng(0))
    assert (wild[:, 2:] > wild[:, :2]).all()


def test_names_have_something_around_them_at_times():
    rng = np.random.default_rng(0)
    seen = {detector.named("left lung", rng) for _ in range(200)}
    assert set(PHRASES["left lung"]) < seen
    assert {frame.format("left lung") for frame in FRAMES} <= seen


def test_a_few_steps_leave_checkpoints_that_load_and_answer(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(segmenter, "_HELD_OUT", 2)
    monkeypatch.setattr(detector, "_HELD_OUT", 2)
    segmenter.train_segmenter(tmp_path, pictures=3, steps=2, batch=2)
    detector.train_detector(tmp_path, pictures=3, steps=2, batch=2)
    said = capsys.readouterr().out
    assert "segmenter left lung: rough box 0." in said
    assert "detector absent phrase for nothing: under 0.1" in said
    image = render(Patient.sample(0)).image
    assert load_segmenter(str(tmp_path / "sam")).segment(image, [[10, 10, 90, 90]]).shape == (1, 224, 224)
    assert load_detector(str(tmp_path / "owlv2")).detect(image, ["heart"]).boxes.shape == (1, 4)
