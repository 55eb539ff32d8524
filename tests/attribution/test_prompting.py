"""Asking the model for its evidence: what is said, what its words mean in native pixels, what is reported."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.prompting import Prompting, PromptingMedSAM
from medfocus_bench.attribution.vision_models import load_detector, load_segmenter, mask_boxes
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.score import score_samples
from medfocus_bench.lvlm.protocol import Response
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom.render import Patient, render
from medfocus_bench.phantom.training.regions import overlap

from .conftest import phantom, shipped
from .vision_checkpoints import write_owlv2, write_sam

QUESTION = prompt("rib lesion", "direct")
WIDE = np.random.default_rng(0).integers(0, 256, (200, 400), dtype=np.uint8)
"""In the model frame of 224 it lies between y = 56 and y = 168."""


class Says:
    """A model of a family that replies with a given text."""

    def __init__(self, boxes, text):
        self.family = SimpleNamespace(boxes=boxes)
        self.device = torch.device("cpu")
        self.text = text

    def converse(self, image, said, *, max_new_tokens=512):
        self.image, self.said = image, said
        return Response(self.text, (1,), None)


@pytest.fixture
def wide(qwen):
    return qwen.encode(WIDE, QUESTION, "Yes.")


@lru_cache
def native_qwen():
    return load_lvlm("phantom_qwen", framing="native")


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """The settings that point at tiny checkpoints."""
    folder = tmp_path_factory.mktemp("vision")
    sources = {"detector": write_owlv2(folder / "owlv2"), "segmenter": write_sam(folder / "sam")}
    return {name: str(source) for name, source in sources.items()}


@pytest.mark.parametrize(
    ("convention", "text"),
    [
        ("pixels", '```json\n[{"bbox_2d": [56, 84, 112, 140], "label": "rib lesion"}]\n```'),
        ("thousandths_xy", "[[250, 375, 500, 625]]"),
        ("thousandths_yx", '[{"box_2d": [375, 250, 625, 500], "label": "rib lesion"}]'),
        ("thousandths_yx", "<loc0384><loc0256><loc0640><loc0512>"),
    ],
)
def test_boxes_of_the_padded_square_become_native(wide, convention, text):
    """Traps 20 and 30: the words are pixels, or thousandths, of what the model saw, padding included."""
    explanation = Prompting().explain(Says(convention, text), wide)
    assert explanation.boxes == pytest.approx(np.array([[100, 50, 200, 150]]))


def test_boxes_of_a_picture_given_as_it_is_become_native():
    lvlm = native_qwen()
    example = lvlm.encode(WIDE, QUESTION, "Yes.")
    height, width = example.pixel_values.shape[1:]
    assert (height, width) != WIDE.shape
    assert height != width
    text = f"[[{width / 4}, {height / 4}, {width / 2}, {height / 2}]]"
    explanation = Prompting().explain(Says("pixels", text), example)
    assert explanation.boxes == pytest.approx(np.array([[100, 50, 200, 100]]))
    swapped = Prompting().explain(Says("thousandths_yx", "[[250, 500, 750, 1000]]"), example)
    assert swapped.boxes == pytest.approx(np.array([[200, 50, 400, 150]]))


def test_boxes_in_the_padding_are_no_evidence_and_others_are_cut(wide):
    text = "[[0, 0, 224, 56], [56, 0, 112, 84], [300, 300, 400, 400], [-50, 112, 56, 300]]"
    explanation = Prompting().explain(Says("pixels", text), wide)
    assert explanation.boxes == pytest.approx(np.array([[100, 0, 200, 50], [0, 100, 100, 200]]))
    assert explanation.diagnostics == {"boxes_written": 4}


@pytest.mark.parametrize(
    ("convention", "stated"),
    [
        ("pixels", "[[x1, y1, x2, y2], ...], in pixels of the image, which is 224 wide and 224 high"),
        ("thousandths_xy", "[[x1, y1, x2, y2], ...], in thousandths"),
        ("thousandths_yx", "[[y1, x1, y2, x2], ...], in thousandths"),
    ],
)
def test_the_request_follows_the_response_and_states_the_convention(wide, convention, stated):
    lvlm = Says(convention, "")
    Prompting().explain(lvlm, wide)
    assert lvlm.image is WIDE
    assert lvlm.said[:2] == [QUESTION, "Yes."]
    assert stated in lvlm.said[2]
    assert "supports your answer" in lvlm.said[2]


def test_a_part_of_the_response_is_quoted(qwen):
    example = qwen.encode(WIDE, QUESTION, "There is a step in the bone. Final answer: Yes.")
    lvlm = Says("pixels", "")
    Prompting().explain(lvlm, example, target=(0, 3))
    assert f'this part of your answer: "{"".join(example.tokens[:3])}"' in lvlm.said[2]


def test_the_phantom_models_write_no_boxes_and_that_is_no_error(lvlm):
    patient = render(Patient.sample((77, 1), findings=["rib lesion"]))
    example = lvlm.encode(patient.image, QUESTION, lvlm.generate(patient.image, QUESTION))
    with lvlm.measured() as meter:
        explanation = Prompting(max_new_tokens=12).explain(lvlm, example)
    assert len(explanation.boxes) == 0
    assert 1 <= meter.forward_passes <= 12
    assert meter.backward_passes == 0


def test_named_regions_are_detected_and_segmented(wide, vision):
    lvlm = Says("pixels", '["rib", "left lung", "heart"]')
    method = PromptingMedSAM(**vision, threshold=0.0)
    explanation = method.explain(lvlm, wide)
    found = load_detector(vision["detector"]).detect(WIDE, ["rib", "left lung", "heart"])
    refined = mask_boxes(load_segmenter(vision["segmenter"]).segment(WIDE, found.boxes))
    shown = (refined[:, 2:] > refined[:, :2]).all(axis=1)
    assert shown.any()
    assert np.array_equal(explanation.boxes, refined[shown])
    assert list(explanation.concepts.values()) == found.scores[shown].tolist()
    assert explanation.diagnostics == {"phrases_written": 3, "phrases_found": 3}
    assert "words or short phrases" in lvlm.said[2]


def test_a_region_that_is_named_is_found_in_a_phantom_by_the_shipped_models(qwen):
    """Trap 20: in native pixels of a picture that neither model sees at its size, nor square."""
    phantom = render(Patient.sample((43_000_000, 20), findings=["nodule"]), 512)
    cut = np.s_[56:456]
    example = qwen.encode(np.ascontiguousarray(phantom.image[cut]), QUESTION, "Yes.")
    method = PromptingMedSAM(detector="phantom_owlv2", segmenter="phantom_sam")
    explanation = method.explain(Says("pixels", '["the heart", "left lung", "NoNo", "a banana"]'), example)
    assert list(explanation.concepts) == ["the heart", "left lung"]
    assert explanation.diagnostics == {"phrases_written": 4, "phrases_found": 2}
    true = mask_boxes([phantom.concepts[name][cut] for name in ("cardiac silhouette", "left lung")])
    assert (overlap(explanation.boxes, true) > 0.75).all()


@pytest.mark.data
def test_a_detector_that_is_told_the_finding_shows_the_lesion_whatever_the_model_used():
    """Finding a finding is not faithfulness: the twins answered by a mark, and the chain shows the lesion."""
    part = phantom().select(["phantom"], ["direct"])
    method = PromptingMedSAM(detector="phantom_owlv2", segmenter="phantom_sam")
    said, samples = [], part.samples[:96]
    for sample in samples:
        example = shipped(sample.lvlm).encode(sample.image, sample.question, sample.response)
        found = method.explain(Says("pixels", f'["{sample.finding}"]'), example)
        said.append((sample, Attribution(sample.sample_id, boxes=found.boxes)))
    scores = score_samples(samples, said, Settings()).columns(["evidence_ap"])[:, 0]
    of_mark = np.array([sample.evidence == "spurious" for sample in samples])
    assert scores[~of_mark].mean() > 0.4
    assert abs(scores[of_mark].mean()) < 0.02


def test_a_phrase_below_the_threshold_adds_nothing(wide, vision):
    phrases = ["rib", "left lung", "heart"]
    scores = load_detector(vision["detector"]).detect(WIDE, phrases).scores
    lvlm = Says("pixels", ", ".join(phrases))
    best = PromptingMedSAM(**vision, threshold=float(scores.max())).explain(lvlm, wide)
    assert best.diagnostics == {"phrases_written": 3, "phrases_found": 1}
    assert len(best.boxes) <= 1
    none = PromptingMedSAM(**vision, threshold=1.0).explain(lvlm, wide)
    assert none.boxes.shape == (0, 4)
    assert none.concepts == {}


def test_a_reply_without_boxes_or_regions_is_no_explanation(wide, vision):
    for method in (Prompting(), PromptingMedSAM(**vision)):
        explanation = method.explain(Says("pixels", "Yes."), wide)
        assert explanation.boxes.shape == (0, 4)
        assert explanation.saliency is None


def test_missing_weights_show_before_the_model_is_asked(wide, vision, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lvlm = Says("pixels", "heart")
    with pytest.raises(InputError, match=r"no-owner/no-model: cannot be loaded .* `hf download"):
        PromptingMedSAM(detector=vision["detector"], segmenter="no-owner/no-model").explain(lvlm, wide)
    assert not hasattr(lvlm, "said")
